/* Vectors of texts: hashed n-grams of characters, and dot products of many vectors with many.
 *
 * A sum runs over eight lanes whatever the instruction set, without fused multiply-add, so that a
 * score has the same bits on every machine. Widths are multiples of 8; the caller pads with zeros.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float Lanes __attribute__((vector_size(32)));

#define QUERIES 2
#define ITEMS 4
#define CHUNK 256 /* items that stay in the cache while all queries pass */

#if defined(__x86_64__)
#define TARGET(name) __attribute__((target(name)))
#endif

/* Passed by address: by value, the calling convention would depend on the instruction set. */
static inline __attribute__((always_inline)) void load(Lanes *v, const float *at) {
    memcpy(v, at, sizeof *v);
}

static inline __attribute__((always_inline)) float total(const Lanes *sum) {
    Lanes v = *sum;
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* Dot products of QUERIES rows with ITEMS rows, all of one width. */
static inline __attribute__((always_inline)) void tile(const float *q, const float *p, size_t width,
                                                       float *out) {
    Lanes sums[QUERIES][ITEMS] = {{{0}}};
    for (size_t d = 0; d < width; d += 8)
        for (int a = 0; a < QUERIES; a++) {
            Lanes x, y;
            load(&x, q + (size_t)a * width + d);
            for (int b = 0; b < ITEMS; b++) {
                load(&y, p + (size_t)b * width + d);
                sums[a][b] += x * y;
            }
        }
    for (int a = 0; a < QUERIES; a++)
        for (int b = 0; b < ITEMS; b++) out[a * ITEMS + b] = total(&sums[a][b]);
}

static inline __attribute__((always_inline)) float one(const float *q, const float *p,
                                                       size_t width) {
    Lanes sum = {0};
    for (size_t d = 0; d < width; d += 8) {
        Lanes x, y;
        load(&x, q + d);
        load(&y, p + d);
        sum += x * y;
    }
    return total(&sum);
}

/* Dot products of queries with a chunk of items: out[query * CHUNK + item]. */
static inline __attribute__((always_inline)) void chunk(const float *q, size_t n_q, const float *p,
                                                        size_t n_p, size_t width, float *out) {
    float four[QUERIES * ITEMS];
    size_t a = 0;
    for (; a + QUERIES <= n_q; a += QUERIES) {
        size_t b = 0;
        for (; b + ITEMS <= n_p; b += ITEMS) {
            tile(q + a * width, p + b * width, width, four);
            for (size_t i = 0; i < QUERIES; i++)
                memcpy(out + (a + i) * CHUNK + b, four + i * ITEMS, ITEMS * sizeof(float));
        }
        for (; b < n_p; b++)
            for (size_t i = 0; i < QUERIES; i++)
                out[(a + i) * CHUNK + b] = one(q + (a + i) * width, p + b * width, width);
    }
    for (; a < n_q; a++)
        for (size_t b = 0; b < n_p; b++) out[a * CHUNK + b] = one(q + a * width, p + b * width, width);
}

typedef void (*Chunk)(const float *, size_t, const float *, size_t, size_t, float *);

static void chunk_generic(const float *q, size_t n_q, const float *p, size_t n_p, size_t width,
                          float *out) {
    chunk(q, n_q, p, n_p, width, out);
}

#ifdef TARGET
TARGET("avx2")
static void chunk_avx2(const float *q, size_t n_q, const float *p, size_t n_p, size_t width,
                       float *out) {
    chunk(q, n_q, p, n_p, width, out);
}
#endif

static Chunk fastest(void) {
#ifdef TARGET
    if (__builtin_cpu_supports("avx2")) return chunk_avx2;
#endif
    return chunk_generic;
}

/* ---- arguments ------------------------------------------------------------------------------ */

typedef struct {
    Py_buffer view;
    float *at;
    size_t rows;
} Rows;

/* Read rows of float32; NULL sets an error. */
static int rows_from(PyObject *object, Py_ssize_t width, int writable, Rows *rows) {
    if (width < 8 || width % 8) {
        PyErr_SetString(PyExc_ValueError, "a width that is no multiple of 8");
        return 0;
    }
    if (PyObject_GetBuffer(object, &rows->view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE)) return 0;
    if (rows->view.len % (width * 4) || (uintptr_t)rows->view.buf % 4) {
        PyErr_SetString(PyExc_ValueError, "a buffer that is not whole rows of float32");
        PyBuffer_Release(&rows->view);
        return 0;
    }
    rows->at = rows->view.buf;
    rows->rows = (size_t)(rows->view.len / (width * 4));
    return 1;
}

/* ---- functions ------------------------------------------------------------------------------ */

/* Put an item among the best of a query: higher first, and of equal ones the earlier. */
static void place(int32_t *index, float *score, int k, int32_t item, float value) {
    if (!(value > score[k - 1])) return;
    int at = k - 1;
    while (at > 0 && value > score[at - 1]) {
        index[at] = index[at - 1];
        score[at] = score[at - 1];
        at--;
    }
    index[at] = item;
    score[at] = value;
}

static PyObject *top(PyObject *self, PyObject *args) {
    PyObject *of, *among, *result = NULL;
    Py_ssize_t width;
    int k;
    double floor;
    Rows q, p;
    if (!PyArg_ParseTuple(args, "OOnid", &of, &among, &width, &k, &floor)) return NULL;
    if (k < 1 || k > 1024) {
        PyErr_SetString(PyExc_ValueError, "k outside 1 to 1024");
        return NULL;
    }
    if (!rows_from(of, width, 0, &q)) return NULL;
    if (!rows_from(among, width, 0, &p)) {
        PyBuffer_Release(&q.view);
        return NULL;
    }
    PyObject *index = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(q.rows * (size_t)k * 4));
    PyObject *score = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(q.rows * (size_t)k * 4));
    float *dots = malloc((q.rows ? q.rows : 1) * CHUNK * sizeof *dots);
    if (p.rows > INT32_MAX)
        PyErr_SetString(PyExc_ValueError, "more than 2 billion items");
    else if (!dots)
        PyErr_NoMemory();
    else if (index && score) {
        int32_t *indices = (int32_t *)PyBytes_AsString(index);
        float *scores = (float *)PyBytes_AsString(score);
        Chunk products = fastest();
        Py_BEGIN_ALLOW_THREADS;
        for (size_t i = 0; i < q.rows * (size_t)k; i++) indices[i] = -1, scores[i] = (float)floor;
        for (size_t start = 0; start < p.rows; start += CHUNK) {
            size_t n = p.rows - start < CHUNK ? p.rows - start : CHUNK;
            products(q.at, q.rows, p.at + start * (size_t)width, n, (size_t)width, dots);
            for (size_t a = 0; a < q.rows; a++)
                for (size_t b = 0; b < n; b++)
                    place(indices + a * (size_t)k, scores + a * (size_t)k, k,
                          (int32_t)(start + b), dots[a * CHUNK + b]);
        }
        Py_END_ALLOW_THREADS;
        result = PyTuple_Pack(2, index, score);
    }
    free(dots);
    Py_XDECREF(index);
    Py_XDECREF(score);
    PyBuffer_Release(&q.view);
    PyBuffer_Release(&p.view);
    return result;
}

/* Rows in order of merit, and for each the best row before them that stays (index from `base`
 * on counts within these rows): a row that reaches the threshold goes, another stays and is moved
 * up. Returns how many stay. */
static PyObject *sift(PyObject *self, PyObject *args) {
    PyObject *of, *index, *score;
    Py_ssize_t width, base;
    double threshold;
    Rows q;
    Py_buffer indices, scores;
    if (!PyArg_ParseTuple(args, "OndnOO", &of, &width, &threshold, &base, &index, &score))
        return NULL;
    if (!rows_from(of, width, 1, &q)) return NULL;
    if (PyObject_GetBuffer(index, &indices, PyBUF_WRITABLE)) {
        PyBuffer_Release(&q.view);
        return NULL;
    }
    if (PyObject_GetBuffer(score, &scores, PyBUF_WRITABLE)) {
        PyBuffer_Release(&q.view);
        PyBuffer_Release(&indices);
        return NULL;
    }
    size_t stay = 0;
    int fits = indices.len == (Py_ssize_t)(4 * q.rows) && scores.len == indices.len;
    if (fits) {
        int32_t *best = indices.buf;
        float *most = scores.buf;
        Chunk products = fastest();
        float dots[CHUNK];
        Py_BEGIN_ALLOW_THREADS;
        for (size_t i = 0; i < q.rows; i++) {
            float *row = q.at + i * (size_t)width;
            for (size_t start = 0; start < stay; start += CHUNK) {
                size_t n = stay - start < CHUNK ? stay - start : CHUNK;
                products(row, 1, q.at + start * (size_t)width, n, (size_t)width, dots);
                for (size_t b = 0; b < n; b++)
                    place(best + i, most + i, 1, (int32_t)((size_t)base + start + b), dots[b]);
            }
            if (best[i] >= 0 && (double)most[i] >= threshold) continue;
            best[i] = -1;
            memmove(q.at + stay++ * (size_t)width, row, (size_t)width * sizeof *row);
        }
        Py_END_ALLOW_THREADS;
    } else {
        PyErr_SetString(PyExc_ValueError, "not one index and one score for each row");
    }
    PyBuffer_Release(&q.view);
    PyBuffer_Release(&indices);
    PyBuffer_Release(&scores);
    return fits ? PyLong_FromSize_t(stay) : NULL;
}

static PyObject *unit(PyObject *self, PyObject *args) {
    PyObject *of;
    Py_ssize_t width;
    Rows q;
    if (!PyArg_ParseTuple(args, "On", &of, &width) || !rows_from(of, width, 1, &q)) return NULL;
    for (size_t i = 0; i < q.rows; i++) {
        float *row = q.at + i * (size_t)width;
        double square = 0.0;
        for (Py_ssize_t d = 0; d < width; d++) square += (double)row[d] * (double)row[d];
        double scale = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
        for (Py_ssize_t d = 0; d < width; d++) row[d] = (float)((double)row[d] * scale);
    }
    PyBuffer_Release(&q.view);
    Py_RETURN_NONE;
}

/* 64-bit FNV-1a, then mixed: the low bits choose the place, the highest one the sign. */
static uint64_t hash(const unsigned char *at, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ at[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static void count(const unsigned char *text, size_t bytes, int low, int high, float *row,
                  size_t width) {
    for (size_t start = 0; start < bytes; start++) {
        if ((text[start] & 0xc0) == 0x80) continue; /* inside a character */
        size_t end = start;
        for (int n = 1; n <= high && end < bytes; n++) {
            do end++;
            while (end < bytes && (text[end] & 0xc0) == 0x80);
            if (n < low) continue;
            uint64_t h = hash(text + start, end - start);
            row[h % width] += h >> 63 ? 1.0f : -1.0f;
        }
    }
    for (size_t d = 0; d < width; d++) row[d] = row[d] < 0 ? -sqrtf(-row[d]) : sqrtf(row[d]);
}

static PyObject *ngrams(PyObject *self, PyObject *args) {
    PyObject *texts;
    Py_ssize_t width;
    int low, high;
    if (!PyArg_ParseTuple(args, "O!nii", &PyList_Type, &texts, &width, &low, &high)) return NULL;
    if (width < 8 || width % 8 || low < 1 || high < low) {
        PyErr_SetString(PyExc_ValueError, "a width that is no multiple of 8, or no n-grams");
        return NULL;
    }
    Py_ssize_t n = PyList_Size(texts);
    PyObject *result = PyByteArray_FromStringAndSize(NULL, n * width * 4);
    if (!result) return NULL;
    float *rows = (float *)PyByteArray_AsString(result);
    memset(rows, 0, (size_t)(n * width) * sizeof *rows);
    for (Py_ssize_t i = 0; i < n; i++) {
        char *text;
        Py_ssize_t bytes;
        if (PyBytes_AsStringAndSize(PyList_GetItem(texts, i), &text, &bytes)) {
            Py_DECREF(result);
            return NULL;
        }
        count((const unsigned char *)text, (size_t)bytes, low, high, rows + i * width,
              (size_t)width);
    }
    return result;
}

/* ---- the farthest first --------------------------------------------------------------------- */

enum { BEFORE_ALL = -2, AFTER_ALL = 3, CHOSEN = 4 };

/* How alike a row is to the nearest of some chosen ones, as far as was compared. */
typedef struct {
    float nearest;
    uint32_t seen; /* chosen rows that it was compared with */
} State;

typedef struct {
    const void *rows;
    size_t n, width;
    int equal; /* rows are hashes: the share that is equal, in place of the dot product */
    State *states;
    uint32_t *chosen;
} Spread;

static inline __attribute__((always_inline)) float alike(const Spread *s, size_t a, size_t b) {
    if (!s->equal) {
        const float *rows = s->rows;
        return one(rows + a * s->width, rows + b * s->width, s->width);
    }
    const uint32_t *x = (const uint32_t *)s->rows + a * s->width;
    const uint32_t *y = (const uint32_t *)s->rows + b * s->width;
    uint32_t same = 0;
    for (size_t d = 0; d < s->width; d++) same += x[d] == y[d];
    return (float)same / (float)s->width;
}

/* The row that is least like its nearest chosen one; of equals the first.
 *
 * What is known of a row can only grow, so a row whose known nearest is no better than the best row
 * so far is passed over, and compared with the rows chosen meanwhile when its turn comes. */
static inline __attribute__((always_inline)) size_t farthest(const Spread *s, size_t n_chosen) {
    size_t best = 0;
    float least = CHOSEN;
    for (size_t i = 0; i < s->n; i++) {
        State *state = &s->states[i];
        if (state->nearest >= least) continue;
        if (state->nearest < AFTER_ALL)
            for (; state->seen < n_chosen && state->nearest < least; state->seen++) {
                float near = alike(s, i, s->chosen[state->seen]);
                if (near > state->nearest) state->nearest = near;
            }
        if (state->nearest < least) {
            least = state->nearest;
            best = i;
        }
    }
    return best;
}

static inline __attribute__((always_inline)) void choose(const Spread *s, size_t from, size_t to) {
    for (size_t k = from; k < to; k++) {
        s->chosen[k] = (uint32_t)farthest(s, k);
        s->states[s->chosen[k]].nearest = CHOSEN;
    }
}

static void choose_generic(const Spread *s, size_t from, size_t to) { choose(s, from, to); }

#ifdef TARGET
TARGET("avx2")
static void choose_avx2(const Spread *s, size_t from, size_t to) { choose(s, from, to); }
#endif

/* spread(rows, width, equal, states, chosen, from, to): choose rows number `from` to `to`.
 *
 * States start as zeros; rows of zeros are chosen after all others. */
static PyObject *spread(PyObject *self, PyObject *args) {
    Py_buffer rows, states, chosen;
    Py_ssize_t width, from, to;
    int equal;
    if (!PyArg_ParseTuple(args, "y*npw*w*nn", &rows, &width, &equal, &states, &chosen, &from, &to))
        return NULL;
    PyObject *result = NULL;
    size_t n = (size_t)states.len / sizeof(State);
    if (width < 8 || width % 8 || rows.len % (4 * width) || (size_t)(rows.len / (4 * width)) != n ||
        (size_t)states.len != n * sizeof(State) || from < 0 || to < from ||
        chosen.len / 4 < to || (size_t)to > n) {
        PyErr_SetString(PyExc_ValueError, "buffers that do not fit");
        goto end;
    }
    Spread s = {rows.buf, n, (size_t)width, equal, states.buf, chosen.buf};
    for (Py_ssize_t k = 0; k < from; k++)
        if (s.chosen[k] >= n) {
            PyErr_SetString(PyExc_ValueError, "a chosen row that is not there");
            goto end;
        }
    Py_BEGIN_ALLOW_THREADS
    if (!from)
        for (size_t i = 0; i < n; i++) {
            const uint32_t *row = (const uint32_t *)s.rows + i * s.width;
            uint32_t any = 0;
            for (size_t d = 0; d < s.width; d++) any |= row[d];
            s.states[i] = (State){any ? BEFORE_ALL : AFTER_ALL, 0};
        }
#ifdef TARGET
    if (__builtin_cpu_supports("avx2"))
        choose_avx2(&s, (size_t)from, (size_t)to);
    else
#endif
        choose_generic(&s, (size_t)from, (size_t)to);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
end:
    PyBuffer_Release(&rows);
    PyBuffer_Release(&states);
    PyBuffer_Release(&chosen);
    return result;
}

/* signatures(keys, n) -> rows of 32-bit hashes out of columns of 64-bit ones, of n rows each */
static PyObject *signatures(PyObject *self, PyObject *args) {
    Py_buffer keys;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "y*n", &keys, &n)) return NULL;
    Py_ssize_t width = n > 0 ? keys.len / 8 / n : 0;
    PyObject *result = NULL;
    if (n < 0 || keys.len != 8 * n * width)
        PyErr_SetString(PyExc_ValueError, "keys that do not fit");
    else
        result = PyByteArray_FromStringAndSize(NULL, 4 * n * width);
    if (result) {
        uint32_t *to = (uint32_t *)PyByteArray_AsString(result);
        const uint64_t *from = keys.buf;
        for (Py_ssize_t d = 0; d < width; d++)
            for (Py_ssize_t i = 0; i < n; i++) to[i * width + d] = (uint32_t)from[d * n + i];
    }
    PyBuffer_Release(&keys);
    return result;
}

static PyMethodDef functions[] = {
    {"spread", spread, METH_VARARGS, NULL},
    {"signatures", signatures, METH_VARARGS, NULL},
    {"top", top, METH_VARARGS, NULL},
    {"sift", sift, METH_VARARGS, NULL},
    {"unit", unit, METH_VARARGS, NULL},
    {"ngrams", ngrams, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_vectors", NULL, -1, functions,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__vectors(void) { return PyModule_Create(&module); }
