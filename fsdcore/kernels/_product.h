/* The product of one block and one tile, for one instruction set. Included once for each, with these defined:
 *
 *   NAME(x)         x with the suffix of the instruction set
 *   TARGET          the function attribute that allows its instructions
 *   V, LANES        a vector of floats, and how many it holds
 *   LOAD STORE SPLAT ZERO FMADD ADD MUL   on vectors
 *   RELU(z) CLIP(z, bound) LEAKY(z, slope)  activations; a NaN stays one
 *   MARK, MARK_ZERO, MARK_OR(mark, z), MARK_PUT(mark, bytes)   which lanes have seen anything but zero
 *   MOST_1, MOST_2, MOST_4, MOST_8   vectors of a row that are summed at a time, by rows of the group: a power of two
 *
 * Every value is the sum of its row's products in the order of the row's indices, each added by one fused multiply-add,
 * whatever the group, the tile, the thread or the processor.
 */

#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE V NAME(activate)(V z, const Job *job) {
    switch (job->activation) {
    case RELU_: return RELU(z);
    case CLIPPED_RELU_: return CLIP(z, SPLAT(job->parameter));
    case LEAKY_RELU_: return LEAKY(z, SPLAT(job->parameter));
    default: return z;
    }
}

/* Ask for what the next group will read and write: its rows lie anywhere, and no processor guesses where. */
INLINE void NAME(fetch)(const int vectors, const float *next, const int write) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        if (v * LANES % LINE) continue;
        /* Not all compilers take an argument for it. */
        if (write)
            __builtin_prefetch(next + v * LANES, 1, 3);
        else
            __builtin_prefetch(next + v * LANES, 0, 3);
    }
}

/* How many of the group's indices have one in the next group to fetch for: none where both share theirs. */
INLINE int32_t NAME(ahead)(const Group *group, const Group *next) {
    if (next->indices == group->indices) return 0;
    return next->length < group->length ? next->length : group->length;
}

/* `rows` rows that share their indices, over `vectors` vectors that begin at `lane` of the tile. */
INLINE void NAME(strip)(const int rows, const int vectors, const int narrow, const Job *job, const Group *group,
                        const Group *next, const Tile *tile, int lane, MARK *marks) {
    const Block *block = job->block;
    const int32_t ahead = NAME(ahead)(group, next);
    const uint16_t *near_next = block->near + (narrow ? next->indices : 0);
    const int32_t *far_next = block->far + (narrow ? 0 : next->indices);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        if (r < next->rows)
            NAME(fetch)(vectors, tile->z + (size_t)block->order[next->first + r] * tile->width + lane, 1);
    const float *weights = block->weights + group->weights;
    const uint16_t *near = block->near + (narrow ? group->indices : 0);
    const int32_t *far = block->far + (narrow ? 0 : group->indices);
    V sum[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[r][v] = ZERO;
    for (int32_t k = 0; k < group->length; k++) {
        if (k < ahead)
            NAME(fetch)(vectors, tile->x + (size_t)(narrow ? near_next[k] : far_next[k]) * tile->stride + lane, 0);
        const float *x = tile->x + (size_t)(narrow ? near[k] : far[k]) * tile->stride + lane;
        V values[8];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) values[v] = LOAD(x + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            V weight = SPLAT(weights[(size_t)k * rows + r]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[r][v] = FMADD(weight, values[v], sum[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const int32_t row = block->order[group->first + r];
        float *z = tile->z + (size_t)row * tile->width + lane;
        V bias = job->finish ? SPLAT(job->bias[row]) : ZERO;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            V value = job->add ? ADD(LOAD(z + v * LANES), sum[r][v]) : sum[r][v];
            if (job->finish) {
                value = NAME(activate)(ADD(value, bias), job);
                marks[lane / LANES + v] = MARK_OR(marks[lane / LANES + v], value);
            }
            STORE(z + v * LANES, value);
        }
    }
}

/* A whole group over the tile, in strips of at most `most` vectors. */
INLINE void NAME(group)(const int rows, const int most, const int narrow, const Job *job, const Group *group,
                        const Group *next, const Tile *tile, MARK *marks) {
    int lane = 0;
    for (; lane + most * LANES <= tile->width; lane += most * LANES)
        NAME(strip)(rows, most, narrow, job, group, next, tile, lane, marks);
    if (most > 4 && lane + 4 * LANES <= tile->width) {
        NAME(strip)(rows, 4, narrow, job, group, next, tile, lane, marks);
        lane += 4 * LANES;
    }
    if (most > 2 && lane + 2 * LANES <= tile->width) {
        NAME(strip)(rows, 2, narrow, job, group, next, tile, lane, marks);
        lane += 2 * LANES;
    }
    if (most > 1 && lane + LANES <= tile->width) NAME(strip)(rows, 1, narrow, job, group, next, tile, lane, marks);
}

INLINE void NAME(groups)(const int narrow, const Job *job, const Tile *tile, int32_t from, int32_t to, MARK *marks) {
    for (const Group *group = job->block->groups + from; group < job->block->groups + to; group++) {
        const Group *next = group + 1 < job->block->groups + to ? group + 1 : group;
        if (group->rows == 8)
            NAME(group)(8, MOST_8, narrow, job, group, next, tile, marks);
        else if (group->rows == 4)
            NAME(group)(4, MOST_4, narrow, job, group, next, tile, marks);
        else if (group->rows == 2)
            NAME(group)(2, MOST_2, narrow, job, group, next, tile, marks);
        else
            NAME(group)(1, MOST_1, narrow, job, group, next, tile, marks);
    }
}

TARGET static void NAME(product)(const Job *job, const Tile *tile, int32_t from, int32_t to) {
    MARK marks[WIDEST / LANES];
    for (int v = 0; v < WIDEST / LANES; v++) marks[v] = MARK_ZERO;
    if (job->block->near_indices)
        NAME(groups)(1, job, tile, from, to, marks);
    else
        NAME(groups)(0, job, tile, from, to, marks);
    if (!job->finish) return;
    uint8_t seen[WIDEST] = {0};
    for (int v = 0; v < tile->width / LANES; v++) MARK_PUT(marks[v], seen + v * LANES);
    for (int lane = 0; lane < tile->width; lane++)
        if (seen[lane]) __atomic_store_n(tile->live + lane, 1, __ATOMIC_RELAXED);
}

/* `count` times sixteen sums of fused multiply-adds, to find what the processor can do at most. */
TARGET static float NAME(burn)(long count) {
    V sum[12], factor = SPLAT(0.5f);
#pragma GCC unroll 12
    for (int v = 0; v < 12; v++) sum[v] = SPLAT((float)v);
    for (long n = 0; n < count; n++) {
#pragma GCC unroll 12
        for (int v = 0; v < 12; v++) sum[v] = FMADD(factor, sum[v], factor);
        __asm__ volatile("" ::: "memory");
    }
    V total = ZERO;
#pragma GCC unroll 12
    for (int v = 0; v < 12; v++) total = ADD(total, sum[v]);
    float lanes[LANES];
    STORE(lanes, total);
    return lanes[0];
}

/* Read `size` floats `count` times. */
TARGET static float NAME(sweep)(const float *data, Py_ssize_t size, long count) {
    V sum[8];
    for (int v = 0; v < 8; v++) sum[v] = ZERO;
    for (long n = 0; n < count; n++) {
        for (Py_ssize_t i = 0; i + 8 * LANES <= size; i += 8 * LANES)
#pragma GCC unroll 8
            for (int v = 0; v < 8; v++) sum[v] = ADD(sum[v], LOAD(data + i + v * LANES));
        __asm__ volatile("" ::: "memory");
    }
    V total = ZERO;
    for (int v = 0; v < 8; v++) total = ADD(total, sum[v]);
    float lanes[LANES];
    STORE(lanes, total);
    return lanes[0];
}

static const Instructions NAME(instructions) = {NAME_TEXT, LANES, 12, NAME(product), NAME(burn), NAME(sweep)};

#undef INLINE
#undef NAME
#undef NAME_TEXT
#undef TARGET
#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef SPLAT
#undef ZERO
#undef FMADD
#undef ADD
#undef RELU
#undef CLIP
#undef LEAKY
#undef MARK
#undef MARK_ZERO
#undef MARK_OR
#undef MARK_PUT
#undef MOST_1
#undef MOST_2
#undef MOST_4
#undef MOST_8
