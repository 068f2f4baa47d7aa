/* Moving lanes and rows: what is taken, and brought into another order, between products. */

#ifndef FSD_MOVES_H
#define FSD_MOVES_H

#include "_python.h"

PyDoc_STRVAR(move_doc, "move((x, rows, tile, lanes), lane_of, (z, tile, lanes))\n\n"
                       "Lanes of x to an array of tiles z, zero where `lane_of` is -1.");

static PyObject *move(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer x, lane_of, z;
    Py_ssize_t rows, x_tile, x_lanes, tile, lanes;
    if (!PyArg_ParseTuple(args, "(y*nnn)y*(w*nn)", &x, &rows, &x_tile, &x_lanes, &lane_of, &z, &tile, &lanes))
        return NULL;
    /* Sizes below 2^31 first, so that no product of two overflows. */
    int sound = rows >= 0 && rows < INT32_MAX && x_tile >= 1 && x_lanes >= 0 && x_lanes < INT32_MAX &&
                x.len / 4 >= rows * x_lanes && tile >= STEP && tile <= WIDEST && lanes >= 0 && lanes < INT32_MAX && lane_of.len == 4 * lanes && z.len / 4 >= rows * lanes &&
                sound_lanes(lane_of.buf, lanes, x_lanes);
    if (sound) {
        PyThreadState *state = let_go(8 * rows * lanes);
        for (Py_ssize_t first = 0; first < lanes; first += tile) {
            int64_t width = width_of(tile, lanes, first / tile);
            pack_lanes(x.buf, rows, x_tile, x_lanes, (const int32_t *)lane_of.buf + first, width, NULL,
                       (float *)z.buf + first * rows, 0, rows);
        }
        take_back(state);
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
    int sound = rows >= 0 && rows < INT32_MAX && tile >= 1 && lanes >= 0 && lanes < INT32_MAX &&
                x.len / 4 >= rows * lanes && count < INT32_MAX && width < INT32_MAX && result.len / 4 == count * width && ascending(lane_of.buf, width) &&
                sound_lanes(lane_of.buf, width, lanes);
    for (int64_t i = 0; sound && i < count; i++)
        sound = ((const int32_t *)picked.buf)[i] >= 0 && ((const int32_t *)picked.buf)[i] < rows;
    if (sound) {
        PyThreadState *state = let_go(8 * count * width);
        take_rows(x.buf, rows, tile, lanes, picked.buf, count, lane_of.buf, width, result.buf);
        take_back(state);
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

#endif
