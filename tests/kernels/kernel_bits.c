/* Multiplies a block that is made up here, with each instruction set that is there, and writes a hash of the bits.
 *
 * Needs no Python, so it can be built for other processors and run by an emulator of theirs.
 */

#include <stdio.h>

typedef long Py_ssize_t;
#include "_instructions.h"

#define ROWS 48
#define WIDTH 64
#define TILE 48
#define LENGTH 23

static uint64_t state;

static uint64_t draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

/* Any finite float of a wide range of exponents, some so small that products underflow. */
static float draw_float(int spread) {
    float value = (float)((double)draw() / 1073741824.0 - 1.0);
    for (int power = (int)(draw() % (unsigned)spread); power > 0; power--) value *= 0.5f;
    return value;
}

static uint64_t hash_of(const float *values, long count) {
    uint64_t hash = 1469598103934665603u;
    const uint8_t *bytes = (const uint8_t *)values;
    for (long i = 0; i < count * 4; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static Group groups[ROWS];
static int32_t order[ROWS];
static uint16_t near[ROWS * LENGTH];
static float weights[ROWS * LENGTH], bias[ROWS], x[WIDTH * TILE], z[ROWS * TILE];
static uint8_t live[TILE];

/* Groups of 1, 2, 4 and 8 rows in turn. */
static int make_groups(int spread) {
    int32_t row = 0, count = 0;
    int64_t indices = 0, at = 0;
    while (row < ROWS) {
        int32_t rows = 1 << (count % 4);
        while (rows > ROWS - row) rows /= 2;
        groups[count++] = (Group){indices, at, row, LENGTH, rows};
        for (int k = 0; k < LENGTH; k++) near[indices + k] = (uint16_t)(draw() % WIDTH);
        for (int k = 0; k < LENGTH * rows; k++) weights[at + k] = draw_float(spread);
        indices += LENGTH, at += LENGTH * rows, row += rows;
    }
    return count;
}

static void multiply(const Instructions *with, int spread, int activation) {
    state = 42 + (uint64_t)spread;
    Block block = {.rows = ROWS, .width = WIDTH, .near_indices = 1, .groups = groups, .order = order};
    block.weights = weights, block.near = near;
    block.group_count = make_groups(spread);
    for (int i = 0; i < ROWS; i++) order[i] = ROWS - 1 - i, bias[i] = draw_float(spread);
    for (int i = 0; i < WIDTH * TILE; i++) x[i] = draw_float(spread);
    memset(z, 0, sizeof z);
    Job job = {.block = &block, .finish = 1, .activation = activation, .parameter = 0.5f, .bias = bias};
    Tile tile = {.x = x, .z = z, .live = live, .stride = TILE, .width = TILE};
    with->product(&job, &tile, 0, block.group_count);
    printf("%d %d %016llx\n", spread, activation, (unsigned long long)hash_of(z, ROWS * TILE));
}

int main(int count, char **names) {
    const Instructions *with = find_instructions(count > 1 ? names[1] : NULL);
    if (!with) return 1;
    for (int spread = 1; spread <= 140; spread += 3)
        for (int activation = 0; activation < ACTIVATIONS; activation++) multiply(with, spread, activation);
    return 0;
}
