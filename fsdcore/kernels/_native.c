/* The compiled kernel: z = f(z + W x + b) over tiles of samples.
 *
 * Activations are stored tile by tile: a tile holds up to WIDEST samples ("lanes") of every row, row by row. All tiles
 * of an array have the same width but the last, which may be narrower; widths are multiples of STEP. An array with all
 * of its samples in one tile is a plain row-major matrix.
 *
 * Everything that comes from outside is checked, a block once when it is made, before any loop runs over it.
 */

#include "_python.h"

#include "_instructions.h"
#include "_blocks.h"
#include "_threads.h"

/* The product ----------------------------------------------------------------------------------------------------- */

static int64_t width_of(int64_t tile, int64_t lanes, int64_t number) {
    int64_t left = lanes - number * tile;
    return left < tile ? left : tile;
}

/* Lanes `lane_of[0 .. width)` of an array of tiles, the rows `first .. last`, into `packed`, row-major. Row i is row
 * `number_of[i]` of the array, or its own.
 */
static void pack_lanes(const float *x, int64_t rows, int64_t tile, int64_t lanes, const int32_t *lane_of, int64_t width,
                       const int32_t *number_of, float *packed, int64_t first, int64_t last) {
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
        for (int64_t row = first; row < last; row++) {
            const float *values = x + from[0] + (number_of ? number_of[row] : row) * step[0];
            memcpy(packed + row * width, values, (size_t)count * sizeof *x);
            if (count < width) memset(packed + row * width + count, 0, (size_t)(width - count) * sizeof *x);
        }
        return;
    }
    if (count < width) memset(packed + first * width, 0, (size_t)((last - first) * width) * sizeof *x);
    for (int64_t row = first; row < last; row++) {
        int64_t number = number_of ? number_of[row] : row;
        for (int64_t i = 0; i < count; i++) packed[row * width + at[i]] = x[from[i] + number * step[i]];
    }
}

static void pack_samples(const Job *job, int64_t first, int64_t width, float *packed) {
    memset(packed, 0, (size_t)(job->block->width * width) * sizeof *packed);
    for (int64_t lane = 0; lane < width; lane++) {
        int32_t sample = job->lane_of[first + lane];
        if (sample < 0) continue;
        for (int64_t k = job->starts[sample]; k < job->starts[sample + 1]; k++)
            packed[job->sample_rows[k] * width + lane] += job->sample_values[k];
    }
}

/* A share of x for a tile of z, packed as the product reads it. Samples are not cut: they have one share. */
static void pack(const Job *job, int64_t number, int64_t share, int64_t shares, float *packed) {
    int64_t first = number * job->tile, width = width_of(job->tile, job->lanes, number), rows = job->block->width;
    if (job->starts)
        pack_samples(job, first, width, packed);
    else
        pack_lanes(job->x, rows, job->x_tile, job->x_lanes, job->lane_of + first, width, job->number_of, packed,
                   rows * share / shares, rows * (share + 1) / shares);
}

static int packs(const Job *job) { return job->starts || job->lane_of; }

/* Where tiles are few, threads pack them together, all beside one another; else each packs those it multiplies. */
static int packs_first(const Job *job) { return packs(job) && job->chunks > 1; }

static void pack_all(Job *job) {
    int64_t shares = job->starts ? 1 : job->chunks, units = shares * job->tiles;
    for (;;) {
        int64_t unit = __atomic_fetch_add(&job->next_packed, 1, __ATOMIC_RELAXED);
        if (unit >= units) break;
        int64_t number = unit / shares;
        pack(job, number, unit % shares, shares, job->scratch + number * job->tile * job->block->width);
        __atomic_fetch_add(&job->packed, 1, __ATOMIC_RELEASE);
    }
    await_at_least(&job->packed, units);
}

/* Where the kernel reads x for a tile of z: in place, or packed. */
static float *x_of_tile(const Job *job, int64_t number, int thread) {
    int64_t before = number * job->tile * job->block->width;
    if (!packs(job)) return (float *)job->x + before;
    if (packs_first(job)) return job->scratch + before;
    float *packed = job->scratch + thread * job->block->width * (job->tile < job->lanes ? job->tile : job->lanes);
    pack(job, number, 0, 1, packed);
    return packed;
}

/* Take units of work, each a share of the rows of one tile, until there are none. */
static void work(void *given, int thread) {
    Job *job = given;
    int64_t held = -1, groups = job->block->group_count;
    Tile tile = {0};
    if (packs_first(job)) pack_all(job);
    for (;;) {
        int64_t unit = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (unit >= job->tiles * job->chunks) return;
        int64_t number = unit / job->chunks, share = unit % job->chunks;
        if (number != held) {
            held = number;
            tile.width = (int)width_of(job->tile, job->lanes, number);
            tile.stride = tile.width;
            tile.x = x_of_tile(job, number, thread);
            tile.z = job->z + number * job->tile * job->block->rows;
            tile.live = job->live + number * job->tile;
        }
        chosen->product(job, &tile, (int32_t)(groups * share / job->chunks),
                        (int32_t)(groups * (share + 1) / job->chunks));
    }
}

static int within(const int32_t *values, int64_t count, int64_t least, int64_t below) {
    for (int64_t i = 0; i < count; i++)
        if (values[i] < least || values[i] >= below) return 0;
    return 1;
}

static int sound_lanes(const int32_t *lane_of, int64_t count, int64_t below) {
    return within(lane_of, count, -1, below);
}

/* The part of a call that both kinds of x share. */
typedef struct {
    Py_buffer z, bias, live, scratch;
    Py_ssize_t tile, lanes, chunks;
    int add, activation, threads;
    float parameter;
    PyObject *block;
} Call;

static int sound_target(const Call *call, const Block *block) {
    int64_t tile = call->tile, lanes = call->lanes;
    return tile >= STEP && tile <= WIDEST && tile % STEP == 0 && lanes >= 0 && lanes % STEP == 0 &&
           lanes < INT32_MAX && call->z.len / 4 >= block->rows * lanes && call->chunks >= 1 &&
           call->chunks <= INT32_MAX && call->threads >= 1 && call->threads <= MOST_HELPERS + 1 && call->activation >= 0 && call->activation < ACTIVATIONS &&
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
    job.chunks = call->chunks;
    job.scratch = call->scratch.buf;
    return job;
}

static void release_call(Call *call) {
    PyBuffer_Release(&call->z);
    PyBuffer_Release(&call->bias);
    PyBuffer_Release(&call->live);
    PyBuffer_Release(&call->scratch);
}

/* Whether there is room to pack x in: for all tiles, or for one of each thread. */
static int sound_scratch(const Call *call, const Job *job) {
    if (!packs(job)) return 1;
    int64_t each = call->tile < call->lanes ? call->tile : call->lanes;
    int64_t held = packs_first(job) ? call->lanes : each * call->threads;
    return call->scratch.len / 4 >= job->block->width * held;
}

static PyObject *run(const Call *call, Job *job, int sound) {
    if (!sound || !sound_scratch(call, job)) return PyErr_Format(PyExc_ValueError, "arrays that do not fit the block or each other");
    job->tiles = (job->lanes + job->tile - 1) / job->tile;
    PyThreadState *state = let_go(job->block->bytes / 8 * job->lanes);
    together(work, job, call->threads);
    take_back(state);
    Py_RETURN_NONE;
}

#define CALL_FORMAT "(w*nni)(y*ifw*)(inw*)"
#define CALL_PLACES(call) \
    &(call).z, &(call).tile, &(call).lanes, &(call).add, &(call).bias, &(call).activation, &(call).parameter, \
        &(call).live, &(call).threads, &(call).chunks, &(call).scratch

PyDoc_STRVAR(multiply_doc,
             "multiply(block, (x, tile, lanes, lane_of, number_of), (z, tile, lanes, add),"
             " (bias, activation, parameter, live), (threads, chunks, scratch))\n\n"
             "z = W x, or z + W x with `add`; then bias and activation if `live` has room for the marks of the lanes\n"
             "in which anything is not zero. `lane_of` says which lane of x each lane of z reads; empty: its own.\n"
             "`number_of` says which row of x each column of W is; empty: its own. x then is one tile.\n"
             "The work is cut into as many chunks a tile, and shared by so many threads.");

/* Whether `x` has the lanes and rows that the job reads. */
static int sound_source(const Job *job, const Py_buffer *x, const Py_buffer *lane_of, const Py_buffer *number_of) {
    int64_t floats = x->len / 4, lanes = job->x_lanes, width = job->block->width;
    if (job->x_tile < 1 || lanes < 0 || lanes >= INT32_MAX) return 0;
    if (!job->lane_of)
        return !job->number_of && job->x_tile == job->tile && lanes == job->lanes && floats >= width * lanes;
    if (lane_of->len != 4 * job->lanes || !sound_lanes(job->lane_of, job->lanes, lanes)) return 0;
    if (!job->number_of) return floats >= width * lanes;
    return job->x_tile >= lanes && number_of->len == 4 * width &&
           within(job->number_of, width, 0, lanes ? floats / lanes : INT32_MAX);
}

static PyObject *multiply(PyObject *self, PyObject *args) {
    (void)self;
    Call call;
    Py_buffer x, lane_of, number_of;
    Py_ssize_t x_tile, x_lanes;
    if (!PyArg_ParseTuple(args, "O(y*nny*y*)" CALL_FORMAT, &call.block, &x, &x_tile, &x_lanes, &lane_of, &number_of,
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
        job.number_of = number_of.len ? number_of.buf : NULL;
        result = run(&call, &job, sound_target(&call, block) && sound_source(&job, &x, &lane_of, &number_of));
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&lane_of);
    PyBuffer_Release(&number_of);
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
                    sound_lists(job.starts, samples, job.sample_rows, rows.len / 4, block->width);
        result = run(&call, &job, sound);
    }
    PyBuffer_Release(&starts);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&values);
    PyBuffer_Release(&lane_of);
    release_call(&call);
    return result;
}

/* Moving lanes and rows, which are checked as above. */
#include "_moves.h"

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
    if (pthread_atfork(NULL, NULL, after_fork)) return PyErr_NoMemory();
    return PyModule_Create(&definition);
}
