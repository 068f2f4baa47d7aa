/* Blocks: arrays from outside are checked, and put in the order in which the product reads them. */

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
        if (starts[i + 1] < starts[i] || starts[i + 1] - starts[i] > LONGEST_ROW) return 0;
    for (int64_t k = 0; k < count; k++)
        if (indices[k] < 0 || indices[k] >= width) return 0;
    return 1;
}

static int same_list(const int64_t *starts, const int32_t *indices, int32_t a, int32_t b) {
    int64_t length = starts[a + 1] - starts[a];
    return length == starts[b + 1] - starts[b] &&
           !memcmp(indices + starts[a], indices + starts[b], (size_t)length * sizeof *indices);
}

/* Rows that are computed together: a power of two. */
#define MOST_ALIKE 8

static int32_t rows_alike(const int64_t *starts, const int32_t *indices, const int32_t *order, int64_t left) {
    int32_t alike = 1;
    while (alike < MOST_ALIKE && alike < left && same_list(starts, indices, order[0], order[alike])) alike++;
    while (alike & (alike - 1)) alike &= alike - 1;
    return alike;
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
        block->groups[block->group_count++] =
            (Group){(uint32_t)last, (uint32_t)weights, (int32_t)at, (uint32_t)length, (uint32_t)rows};
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

/* Letting another Python thread run costs more than little work takes, above all where threads are many. */
#define LITTLE_WORK (2 << 20)

static PyThreadState *let_go(int64_t products) { return products > LITTLE_WORK ? PyEval_SaveThread() : NULL; }

static void take_back(PyThreadState *state) {
    if (state) PyEval_RestoreThread(state);
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
                rows < INT32_MAX && count <= UINT32_MAX && sound_order(order.buf, rows) &&
                sound_lists(starts.buf, rows, indices.buf, count, width);
    Block *block = NULL;
    if (sound) {
        PyThreadState *state = let_go(8 * count);
        block = make_block(starts.buf, indices.buf, data.buf, order.buf, rows, width, count);
        take_back(state);
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
