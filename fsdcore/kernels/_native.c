/* The compiled kernel: z = f(z + W x + b) over tiles of samples.
 *
 * Activations are stored tile by tile: a tile holds up to WIDEST samples ("lanes") of every row, row by row. All tiles
 * of an array have the same width but the last, which may be narrower; widths are multiples of STEP. An array with all
 * of its samples in one tile is a plain row-major matrix.
 *
 * Everything that comes from outside is checked here, a block once when it is made, before any loop runs over it.
 */

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STEP 16
#define WIDEST 64
#define BLOCK_NAME "fsdcore.kernels.Block"

enum { IDENTITY_, RELU_, CLIPPED_RELU_, LEAKY_RELU_, ACTIVATIONS };

/* Rows that share their indices: `rows` of them from `first` in the visiting order. Weights lie k by k, row by row. */
typedef struct {
    int64_t indices, weights;
    int32_t first, length, rows;
} Group;

typedef struct {
    int64_t rows, width, bytes;
    int32_t group_count;
    int near_indices;
    Group *groups;
    int32_t *order;
    float *weights;
    uint16_t *near;
    int32_t *far;
} Block;

typedef struct {
    float *x, *z;
    uint8_t *live;
    Py_ssize_t stride;
    int width;
} Tile;

typedef struct {
    const Block *block;
    int add, finish, activation;
    float parameter;
    const float *bias;
    /* x: an array of tiles, `lane_of` saying which of its lanes each lane of z reads (-1: zero; NULL: its own) */
    const float *x;
    int64_t x_tile, x_lanes;
    const int32_t *lane_of;
    /* or samples, each a list of rows and values, `lane_of` naming the sample of each lane of z */
    const int64_t *starts;
    const int32_t *sample_rows;
    const float *sample_values;
    float *z;
    int64_t tile, lanes;
    uint8_t *live;
    int64_t *next;
    int64_t chunks;
    float *scratch;
} Job;

typedef struct {
    const char *name;
    int lanes, chains;
    void (*product)(const Job *, const Tile *, int32_t, int32_t);
    float (*burn)(long);
    float (*sweep)(const float *, Py_ssize_t, long);
} Instructions;

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define NAME(x) x##_avx512
#define NAME_TEXT "avx512"
#define TARGET __attribute__((target("avx512f")))
#define V __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SPLAT(a) _mm512_set1_ps(a)
#define ZERO _mm512_setzero_ps()
#define FMADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
/* max and min give their second operand where one is a NaN. */
#define RELU(z) _mm512_max_ps(ZERO, z)
#define CLIP(z, bound) _mm512_min_ps(bound, _mm512_max_ps(ZERO, z))
#define LEAKY(z, slope) _mm512_mask_mul_ps(z, _mm512_cmp_ps_mask(z, ZERO, _CMP_LT_OQ), z, slope)
#define MARK __mmask16
#define MARK_ZERO 0
#define MARK_OR(mark, z) (__mmask16)((mark) | _mm512_cmp_ps_mask(z, ZERO, _CMP_NEQ_UQ))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (uint8_t)((mark) >> lane_ & 1)
#define MOST_1 4
#define MOST_2 4
#define MOST_4 4
#include "_product.h"

#define NAME(x) x##_avx2
#define NAME_TEXT "avx2"
#define TARGET __attribute__((target("avx2,fma")))
#define V __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPLAT(a) _mm256_set1_ps(a)
#define ZERO _mm256_setzero_ps()
#define FMADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define RELU(z) _mm256_max_ps(ZERO, z)
#define CLIP(z, bound) _mm256_min_ps(bound, _mm256_max_ps(ZERO, z))
#define LEAKY(z, slope) _mm256_blendv_ps(z, _mm256_mul_ps(z, slope), _mm256_cmp_ps(z, ZERO, _CMP_LT_OQ))
#define MARK int
#define MARK_ZERO 0
#define MARK_OR(mark, z) ((mark) | _mm256_movemask_ps(_mm256_cmp_ps(z, ZERO, _CMP_NEQ_UQ)))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (uint8_t)((mark) >> lane_ & 1)
#define MOST_1 8
#define MOST_2 4
#define MOST_4 2
#include "_product.h"
#endif

/* For any processor: vectors of four, by the compiler. */
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));

static inline Four load_four(const float *p) {
    Four v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_four(float *p, Four v) { memcpy(p, &v, sizeof v); }

static inline Four pick_four(FourInts where, Four yes, Four no) {
    return (Four)((where & (FourInts)yes) | (~where & (FourInts)no));
}

#define NAME(x) x##_portable
#define NAME_TEXT "portable"
#define TARGET
#define V Four
#define LANES 4
#define LOAD(p) load_four(p)
#define STORE(p, v) store_four(p, v)
#define SPLAT(a) ((Four){a, a, a, a})
#define ZERO ((Four){0, 0, 0, 0})
#if defined(__aarch64__)
#include <arm_neon.h>
#define FMADD(a, b, c) ((Four)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define MOST_4 4
#else
#define FMADD(a, b, c) ((c) + (a) * (b))
#define MOST_4 2
#endif
#define ADD(a, b) ((a) + (b))
#define RELU(z) pick_four((z) < ZERO, ZERO, z)
#define CLIP(z, bound) pick_four((z) > (bound), bound, RELU(z))
#define LEAKY(z, slope) pick_four((z) < ZERO, (z) * (slope), z)
#define MARK FourInts
#define MARK_ZERO ((FourInts){0, 0, 0, 0})
#define MARK_OR(mark, z) ((mark) | ((z) != ZERO))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (mark)[lane_] != 0
#define MOST_1 4
#define MOST_2 4
#include "_product.h"

static const Instructions *chosen = &instructions_portable;

static const Instructions *find_instructions(const char *name) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    int avx512 = __builtin_cpu_supports("avx512f");
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx512 && (!name || !strcmp(name, "avx512"))) return &instructions_avx512;
    if (avx2 && (!name || !strcmp(name, "avx2"))) return &instructions_avx2;
#endif
    return !name || !strcmp(name, "portable") ? &instructions_portable : NULL;
}

/* Blocks ---------------------------------------------------------------------------------------------------------- */

static void block_free(Block *block) {
    free(block->groups);
    free(block->order);
    free(block->weights);
    free(block->near);
    free(block->far);
    free(block);
}

static void block_capsule_free(PyObject *capsule) {
    block_free((Block *)PyCapsule_GetPointer(capsule, BLOCK_NAME));
}

static int sound_order(const int32_t *order, int64_t rows) {
    uint8_t *seen = calloc((size_t)rows + 1, 1);
    int sound = seen != NULL;
    for (int64_t i = 0; sound && i < rows; i++) {
        sound = order[i] >= 0 && order[i] < rows && !seen[order[i]];
        if (sound) seen[order[i]] = 1;
    }
    free(seen);
    return sound;
}

/* Offsets that rise from 0 to `count`, and indices below `width`. */
static int sound_lists(const int64_t *starts, int64_t lists, const int32_t *indices, int64_t count, int64_t width) {
    if (starts[0] != 0 || starts[lists] != count) return 0;
    for (int64_t i = 0; i < lists; i++)
        if (starts[i + 1] < starts[i] || starts[i + 1] - starts[i] > INT32_MAX) return 0;
    for (int64_t k = 0; k < count; k++)
        if (indices[k] < 0 || indices[k] >= width) return 0;
    return 1;
}

static int same_list(const int64_t *starts, const int32_t *indices, int32_t a, int32_t b) {
    int64_t length = starts[a + 1] - starts[a];
    return length == starts[b + 1] - starts[b] &&
           !memcmp(indices + starts[a], indices + starts[b], (size_t)length * sizeof *indices);
}

static int32_t rows_alike(const int64_t *starts, const int32_t *indices, const int32_t *order, int64_t left) {
    int32_t alike = 1;
    while (alike < 4 && alike < left && same_list(starts, indices, order[0], order[alike])) alike++;
    return alike == 3 ? 2 : alike;
}

static void put_indices(Block *block, int64_t at, const int32_t *indices, int64_t length) {
    if (block->near_indices)
        for (int64_t k = 0; k < length; k++) block->near[at + k] = (uint16_t)indices[k];
    else
        memcpy(block->far + at, indices, (size_t)length * sizeof *indices);
}

/* Fill groups, weights and indices in the visiting order; the number of indices kept. */
static int64_t fill_block(Block *block, const int64_t *starts, const int32_t *indices, const float *data) {
    int64_t kept = 0, weights = 0, last = 0;
    for (int64_t at = 0; at < block->rows;) {
        const int32_t *order = block->order + at;
        int32_t rows = rows_alike(starts, indices, order, block->rows - at);
        int64_t length = starts[order[0] + 1] - starts[order[0]];
        if (at == 0 || !same_list(starts, indices, order[-1], order[0])) {
            last = kept;
            put_indices(block, kept, indices + starts[order[0]], length);
            kept += length;
        }
        block->groups[block->group_count++] = (Group){last, weights, (int32_t)at, (int32_t)length, rows};
        for (int64_t k = 0; k < length; k++)
            for (int32_t r = 0; r < rows; r++) block->weights[weights++] = data[starts[order[r]] + k];
        at += rows;
    }
    return kept;
}

static void *trimmed(void *memory, size_t bytes) {
    void *smaller = realloc(memory, bytes ? bytes : 1);
    return smaller ? smaller : memory;
}

static Block *new_block(int64_t rows, int64_t width, int64_t count) {
    Block *block = calloc(1, sizeof *block);
    if (!block) return NULL;
    size_t entries = (size_t)count + 1;
    block->rows = rows;
    block->width = width;
    block->near_indices = width <= 1 << 16;
    block->groups = malloc(((size_t)rows + 1) * sizeof *block->groups);
    block->order = malloc(((size_t)rows + 1) * sizeof *block->order);
    block->weights = malloc(entries * sizeof *block->weights);
    block->near = malloc((block->near_indices ? entries : 1) * sizeof *block->near);
    block->far = malloc((block->near_indices ? 1 : entries) * sizeof *block->far);
    if (block->groups && block->order && block->weights && block->near && block->far) return block;
    block_free(block);
    return NULL;
}

static Block *make_block(const int64_t *starts, const int32_t *indices, const float *data, const int32_t *order,
                         int64_t rows, int64_t width, int64_t count) {
    Block *block = new_block(rows, width, count);
    if (!block) return NULL;
    memcpy(block->order, order, (size_t)rows * sizeof *order);
    int64_t kept = fill_block(block, starts, indices, data);
    size_t size = block->near_indices ? sizeof *block->near : sizeof *block->far;
    if (block->near_indices)
        block->near = trimmed(block->near, (size_t)kept * size);
    else
        block->far = trimmed(block->far, (size_t)kept * size);
    block->groups = trimmed(block->groups, (size_t)block->group_count * sizeof *block->groups);
    block->bytes = (int64_t)(block->group_count * sizeof *block->groups + (size_t)rows * sizeof *order +
                             (size_t)count * sizeof *data + (size_t)kept * size);
    return block;
}

PyDoc_STRVAR(block_doc, "block(starts int64, indices int32, data float32, order int32, width) -> block\n\n"
                        "A CSR block in its visiting order. ValueError if the arrays do not make one.");

static PyObject *block_new(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer starts, indices, data, order;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*y*y*y*n", &starts, &indices, &data, &order, &width)) return NULL;
    int64_t rows = order.len / 4, count = indices.len / 4;
    int sound = starts.len == 8 * (rows + 1) && data.len == 4 * count && width >= 0 && width <= INT32_MAX &&
                rows < INT32_MAX && sound_order(order.buf, rows) &&
                sound_lists(starts.buf, rows, indices.buf, count, width);
    Block *block = NULL;
    if (sound) {
        Py_BEGIN_ALLOW_THREADS;
        block = make_block(starts.buf, indices.buf, data.buf, order.buf, rows, width, count);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&starts);
    PyBuffer_Release(&indices);
    PyBuffer_Release(&data);
    PyBuffer_Release(&order);
    if (!sound) return PyErr_Format(PyExc_ValueError, "not a sound block");
    return block ? PyCapsule_New(block, BLOCK_NAME, block_capsule_free) : PyErr_NoMemory();
}

PyDoc_STRVAR(describe_doc, "describe(block) -> (bytes, groups)\n\nThe memory it takes, and how many groups of rows.");

static PyObject *describe(PyObject *self, PyObject *capsule) {
    (void)self;
    const Block *block = PyCapsule_GetPointer(capsule, BLOCK_NAME);
    return block ? Py_BuildValue("(Li)", (long long)block->bytes, (int)block->group_count) : NULL;
}

/* The product ----------------------------------------------------------------------------------------------------- */

static int64_t width_of(int64_t tile, int64_t lanes, int64_t number) {
    int64_t left = lanes - number * tile;
    return left < tile ? left : tile;
}

/* Lanes `lane_of[0 .. width)` of an array of tiles, every row, into `packed`, row-major. */
static void pack_lanes(const float *x, int64_t rows, int64_t tile, int64_t lanes, const int32_t *lane_of, int64_t width,
                       int64_t stride, float *packed) {
    int64_t from[WIDEST], step[WIDEST], at[WIDEST], count = 0;
    int straight = 1;
    for (int64_t lane = 0; lane < width; lane++) {
        if (lane_of[lane] < 0) continue;
        int64_t number = lane_of[lane] / tile;
        from[count] = number * tile * rows + lane_of[lane] % tile;
        step[count] = width_of(tile, lanes, number);
        at[count] = lane;
        straight = straight && from[count] == from[0] + count && at[count] == count && step[count] == step[0];
        count++;
    }
    if (straight && count) {
        for (int64_t row = 0; row < rows; row++) {
            memcpy(packed + row * stride, x + from[0] + row * step[0], (size_t)count * sizeof *x);
            if (count < stride) memset(packed + row * stride + count, 0, (size_t)(stride - count) * sizeof *x);
        }
        return;
    }
    if (count < stride) memset(packed, 0, (size_t)(rows * stride) * sizeof *x);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < count; i++) packed[row * stride + at[i]] = x[from[i] + row * step[i]];
}

static void pack_samples(const Job *job, int64_t first, int64_t width) {
    memset(job->scratch, 0, (size_t)(job->block->width * width) * sizeof(float));
    for (int64_t lane = 0; lane < width; lane++) {
        int32_t sample = job->lane_of[first + lane];
        if (sample < 0) continue;
        for (int64_t k = job->starts[sample]; k < job->starts[sample + 1]; k++)
            job->scratch[job->sample_rows[k] * width + lane] += job->sample_values[k];
    }
}

/* Where the kernel reads x for a tile of z: in place, or packed into the scratch memory. */
static float *x_of_tile(const Job *job, int64_t number, int64_t width) {
    int64_t first = number * job->tile;
    if (job->starts)
        pack_samples(job, first, width);
    else if (job->lane_of)
        pack_lanes(job->x, job->block->width, job->x_tile, job->x_lanes, job->lane_of + first, width, width,
                   job->scratch);
    else
        return (float *)job->x + first * job->block->width;
    return job->scratch;
}

/* Take units of work, each a share of the rows of one tile, until there are none. */
static void work(const Job *job) {
    int64_t tiles = (job->lanes + job->tile - 1) / job->tile, held = -1;
    Tile tile = {0};
    for (;;) {
        int64_t unit = __atomic_fetch_add(job->next, 1, __ATOMIC_RELAXED);
        if (unit >= tiles * job->chunks) return;
        int64_t number = unit / job->chunks, share = unit % job->chunks, groups = job->block->group_count;
        if (number != held) {
            held = number;
            tile.width = (int)width_of(job->tile, job->lanes, number);
            tile.stride = tile.width;
            tile.x = x_of_tile(job, number, tile.width);
            tile.z = job->z + number * job->tile * job->block->rows;
            tile.live = job->live + number * job->tile;
        }
        chosen->product(job, &tile, (int32_t)(groups * share / job->chunks),
                        (int32_t)(groups * (share + 1) / job->chunks));
    }
}

static int sound_lanes(const int32_t *lane_of, int64_t count, int64_t below) {
    for (int64_t lane = 0; lane < count; lane++)
        if (lane_of[lane] < -1 || lane_of[lane] >= below) return 0;
    return 1;
}

/* The part of a call that both kinds of x share. */
typedef struct {
    Py_buffer z, bias, live, next, scratch;
    Py_ssize_t tile, lanes, chunks;
    int add, activation;
    float parameter;
    PyObject *block;
} Call;

static int sound_target(const Call *call, const Block *block) {
    int64_t tile = call->tile, lanes = call->lanes;
    return tile >= STEP && tile <= WIDEST && tile % STEP == 0 && lanes >= 0 && lanes % STEP == 0 &&
           lanes < INT32_MAX && call->z.len / 4 >= block->rows * lanes && call->next.len == 8 && call->chunks >= 1 &&
           call->activation >= 0 && call->activation < ACTIVATIONS &&
           (call->live.len == 0 || (call->bias.len == 4 * block->rows && call->live.len == lanes));
}

static Job job_of(const Call *call, const Block *block) {
    Job job = {0};
    job.block = block;
    job.add = call->add;
    job.finish = call->live.len > 0;
    job.activation = call->activation;
    job.parameter = call->parameter;
    job.bias = call->bias.buf;
    job.z = call->z.buf;
    job.tile = call->tile;
    job.lanes = call->lanes;
    job.live = call->live.buf;
    job.next = call->next.buf;
    job.chunks = call->chunks;
    job.scratch = call->scratch.buf;
    return job;
}

static void release_call(Call *call) {
    PyBuffer_Release(&call->z);
    PyBuffer_Release(&call->bias);
    PyBuffer_Release(&call->live);
    PyBuffer_Release(&call->next);
    PyBuffer_Release(&call->scratch);
}

static PyObject *run(const Job *job, int sound) {
    if (!sound) return PyErr_Format(PyExc_ValueError, "arrays that do not fit the block or each other");
    Py_BEGIN_ALLOW_THREADS;
    work(job);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

#define CALL_FORMAT "(w*nni)(y*ifw*)(w*nw*)"
#define CALL_PLACES(call) \
    &(call).z, &(call).tile, &(call).lanes, &(call).add, &(call).bias, &(call).activation, &(call).parameter, \
        &(call).live, &(call).next, &(call).chunks, &(call).scratch

PyDoc_STRVAR(multiply_doc,
             "multiply(block, (x, tile, lanes, lane_of), (z, tile, lanes, add), (bias, activation, parameter, live),"
             " (next, chunks, scratch))\n\n"
             "z = W x, or z + W x with `add`; then bias and activation if `live` has room for the marks of the lanes\n"
             "in which anything is not zero. `lane_of` says which lane of x each lane of z reads; empty: its own.\n"
             "Several threads may make the same call at once, each with a scratch of its own: they share the work.");

static PyObject *multiply(PyObject *self, PyObject *args) {
    (void)self;
    Call call;
    Py_buffer x, lane_of;
    Py_ssize_t x_tile, x_lanes;
    if (!PyArg_ParseTuple(args, "O(y*nny*)" CALL_FORMAT, &call.block, &x, &x_tile, &x_lanes, &lane_of,
                          CALL_PLACES(call)))
        return NULL;
    PyObject *result = NULL;
    const Block *block = PyCapsule_GetPointer(call.block, BLOCK_NAME);
    if (block) {
        Job job = job_of(&call, block);
        job.x = x.buf;
        job.x_tile = x_tile;
        job.x_lanes = x_lanes;
        job.lane_of = lane_of.len ? lane_of.buf : NULL;
        int sound = sound_target(&call, block) && x_tile >= 1 && x_lanes >= 0 && x_lanes < INT32_MAX &&
                    x.len / 4 >= block->width * x_lanes;
        if (job.lane_of)
            sound = sound && lane_of.len == 4 * call.lanes && sound_lanes(job.lane_of, call.lanes, x_lanes) &&
                    call.scratch.len / 4 >= block->width * (call.tile < call.lanes ? call.tile : call.lanes);
        else
            sound = sound && x_tile == call.tile && x_lanes == call.lanes;
        result = run(&job, sound);
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&lane_of);
    release_call(&call);
    return result;
}

PyDoc_STRVAR(multiply_samples_doc,
             "multiply_samples(block, (starts int64, rows int32, values, lane_of), ...)\n\n"
             "As `multiply`, x being sparse: sample s has the values at starts[s] .. starts[s + 1].");

static PyObject *multiply_samples(PyObject *self, PyObject *args) {
    (void)self;
    Call call;
    Py_buffer starts, rows, values, lane_of;
    if (!PyArg_ParseTuple(args, "O(y*y*y*y*)" CALL_FORMAT, &call.block, &starts, &rows, &values, &lane_of,
                          CALL_PLACES(call)))
        return NULL;
    PyObject *result = NULL;
    const Block *block = PyCapsule_GetPointer(call.block, BLOCK_NAME);
    if (block) {
        Job job = job_of(&call, block);
        int64_t samples = starts.len / 8 - 1;
        job.starts = starts.buf;
        job.sample_rows = rows.buf;
        job.sample_values = values.buf;
        job.lane_of = lane_of.buf;
        int sound = sound_target(&call, block) && samples >= 0 && values.len == rows.len &&
                    lane_of.len == 4 * call.lanes && sound_lanes(job.lane_of, call.lanes, samples) &&
                    sound_lists(job.starts, samples, job.sample_rows, rows.len / 4, block->width) &&
                    call.scratch.len / 4 >= block->width * (call.tile < call.lanes ? call.tile : call.lanes);
        result = run(&job, sound);
    }
    PyBuffer_Release(&starts);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&values);
    PyBuffer_Release(&lane_of);
    release_call(&call);
    return result;
}

/* Moving lanes and rows ------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(move_doc, "move((x, rows, tile, lanes), lane_of, (z, tile, lanes))\n\n"
                       "Lanes of x to an array of tiles z, zero where `lane_of` is -1.");

static PyObject *move(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer x, lane_of, z;
    Py_ssize_t rows, x_tile, x_lanes, tile, lanes;
    if (!PyArg_ParseTuple(args, "(y*nnn)y*(w*nn)", &x, &rows, &x_tile, &x_lanes, &lane_of, &z, &tile, &lanes))
        return NULL;
    int sound = rows >= 0 && x_tile >= 1 && x_lanes >= 0 && x_lanes < INT32_MAX && x.len / 4 >= rows * x_lanes &&
                tile >= STEP && tile <= WIDEST && lanes >= 0 && lane_of.len == 4 * lanes && z.len / 4 >= rows * lanes &&
                sound_lanes(lane_of.buf, lanes, x_lanes);
    if (sound) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t first = 0; first < lanes; first += tile) {
            int64_t width = width_of(tile, lanes, first / tile);
            pack_lanes(x.buf, rows, x_tile, x_lanes, (const int32_t *)lane_of.buf + first, width, width,
                       (float *)z.buf + first * rows);
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&lane_of);
    PyBuffer_Release(&z);
    if (!sound) return PyErr_Format(PyExc_ValueError, "arrays that do not fit each other");
    Py_RETURN_NONE;
}

static void take_rows(const float *x, int64_t rows, int64_t tile, int64_t lanes, const int32_t *picked, int64_t count,
                      const int32_t *lane_of, int64_t width, float *result) {
    for (int64_t lane = 0; lane < width;) {
        int64_t number = lane_of[lane] / tile, step = width_of(tile, lanes, number), end = lane;
        while (end < width && lane_of[end] / tile == number) end++;
        const float *from = x + number * tile * rows - number * tile;
        int straight = lane_of[end - 1] - lane_of[lane] == end - 1 - lane;
        for (int64_t i = 0; i < count; i++) {
            const float *row = from + picked[i] * step;
            float *to = result + i * width;
            if (straight)
                memcpy(to + lane, row + lane_of[lane], (size_t)(end - lane) * sizeof *x);
            else
                for (int64_t at = lane; at < end; at++) to[at] = row[lane_of[at]];
        }
        lane = end;
    }
}

static int ascending(const int32_t *values, int64_t count) {
    for (int64_t i = 1; i < count; i++)
        if (values[i] <= values[i - 1]) return 0;
    return count == 0 || values[0] >= 0;
}

PyDoc_STRVAR(take_doc, "take((x, rows, tile, lanes), picked, lane_of, result)\n\n"
                       "The picked rows at the given ascending lanes, as a row-major matrix.");

static PyObject *take(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer x, picked, lane_of, result;
    Py_ssize_t rows, tile, lanes;
    if (!PyArg_ParseTuple(args, "(y*nnn)y*y*w*", &x, &rows, &tile, &lanes, &picked, &lane_of, &result)) return NULL;
    int64_t count = picked.len / 4, width = lane_of.len / 4;
    int sound = rows >= 0 && tile >= 1 && lanes >= 0 && lanes < INT32_MAX && x.len / 4 >= rows * lanes &&
                result.len / 4 == count * width && ascending(lane_of.buf, width) &&
                sound_lanes(lane_of.buf, width, lanes);
    for (int64_t i = 0; sound && i < count; i++)
        sound = ((const int32_t *)picked.buf)[i] >= 0 && ((const int32_t *)picked.buf)[i] < rows;
    if (sound) {
        Py_BEGIN_ALLOW_THREADS;
        take_rows(x.buf, rows, tile, lanes, picked.buf, count, lane_of.buf, width, result.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&picked);
    PyBuffer_Release(&lane_of);
    PyBuffer_Release(&result);
    if (!sound) return PyErr_Format(PyExc_ValueError, "arrays that do not fit each other");
    Py_RETURN_NONE;
}

static void turn(const int64_t *starts, const int32_t *samples, const float *values, int64_t rows, int64_t *ends,
                 int64_t count, int32_t *new_rows, float *new_values) {
    for (int64_t k = 0; k < starts[rows]; k++) ends[samples[k] + 1]++;
    for (int64_t s = 0; s < count; s++) ends[s + 1] += ends[s];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = starts[row]; k < starts[row + 1]; k++) {
            int64_t at = ends[samples[k]]++;
            new_rows[at] = (int32_t)row;
            new_values[at] = values[k];
        }
    memmove(ends + 1, ends, (size_t)count * sizeof *ends);
    ends[0] = 0;
}

PyDoc_STRVAR(turn_doc, "turn((starts int64, samples int32, values), (starts int64, rows int32, values))\n\n"
                       "Sparse rows into sparse samples; the second three are filled, its starts being zero before.");

static PyObject *turn_rows(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer starts, samples, values, new_starts, new_rows, new_values;
    if (!PyArg_ParseTuple(args, "(y*y*y*)(w*w*w*)", &starts, &samples, &values, &new_starts, &new_rows, &new_values))
        return NULL;
    int64_t rows = starts.len / 8 - 1, count = new_starts.len / 8 - 1, nonzeros = samples.len / 4;
    int sound = rows >= 0 && rows < INT32_MAX && count >= 0 && values.len == samples.len &&
                new_rows.len == samples.len && new_values.len == samples.len &&
                sound_lists(starts.buf, rows, samples.buf, nonzeros, count);
    if (sound) {
        memset(new_starts.buf, 0, (size_t)new_starts.len);
        Py_BEGIN_ALLOW_THREADS;
        turn(starts.buf, samples.buf, values.buf, rows, new_starts.buf, count, new_rows.buf, new_values.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&starts);
    PyBuffer_Release(&samples);
    PyBuffer_Release(&values);
    PyBuffer_Release(&new_starts);
    PyBuffer_Release(&new_rows);
    PyBuffer_Release(&new_values);
    if (!sound) return PyErr_Format(PyExc_ValueError, "rows that are not sound");
    Py_RETURN_NONE;
}

/* What the processor can do --------------------------------------------------------------------------------------- */

PyDoc_STRVAR(instructions_doc, "instructions() -> str\n\nThe instruction set in use.");

static PyObject *instructions(PyObject *self, PyObject *none) {
    (void)self;
    (void)none;
    return PyUnicode_FromString(chosen->name);
}

PyDoc_STRVAR(use_doc, "use(name) -> bool\n\nUse another instruction set; False if this processor does not have it.");

static PyObject *use(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name)) return NULL;
    const Instructions *found = find_instructions(name);
    if (found) chosen = found;
    return PyBool_FromLong(found != NULL);
}

PyDoc_STRVAR(burn_doc, "burn(count) -> float\n\nRun `count` rounds of multiply-adds; how many were done.");

static PyObject *burn(PyObject *self, PyObject *args) {
    (void)self;
    long count;
    volatile float sink;
    if (!PyArg_ParseTuple(args, "l", &count)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    sink = chosen->burn(count);
    Py_END_ALLOW_THREADS;
    (void)sink;
    return PyFloat_FromDouble((double)count * chosen->chains * chosen->lanes);
}

PyDoc_STRVAR(sweep_doc, "sweep(data float32, count)\n\nRead all of `data` `count` times.");

static PyObject *sweep(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    long count;
    volatile float sink;
    if (!PyArg_ParseTuple(args, "y*l", &data, &count)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    sink = chosen->sweep(data.buf, data.len / 4, count);
    Py_END_ALLOW_THREADS;
    (void)sink;
    PyBuffer_Release(&data);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"block", block_new, METH_VARARGS, block_doc},
    {"describe", describe, METH_O, describe_doc},
    {"multiply", multiply, METH_VARARGS, multiply_doc},
    {"multiply_samples", multiply_samples, METH_VARARGS, multiply_samples_doc},
    {"move", move, METH_VARARGS, move_doc},
    {"take", take, METH_VARARGS, take_doc},
    {"turn", turn_rows, METH_VARARGS, turn_doc},
    {"instructions", instructions, METH_NOARGS, instructions_doc},
    {"use", use, METH_VARARGS, use_doc},
    {"burn", burn, METH_VARARGS, burn_doc},
    {"sweep", sweep, METH_VARARGS, sweep_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "The compiled kernel.", -1, methods, NULL,
                                        NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    chosen = find_instructions(NULL);
    return PyModule_Create(&definition);
}
