/* What a digest of a column is made of: the bytes of its values, and the sum of its ids.
 *
 * The bytes do not depend on how a library lays a column out: chunks, views and what lies under a
 * null leave no trace in them.
 */

#include "columns.h"

/* How to say in an exception what went wrong with a column. */
static void *refuse(const char *wrong) {
    if (!strcmp(wrong, "no memory")) return PyErr_NoMemory();
    PyErr_Format(PyExc_TypeError, "the column is %s", wrong);
    return NULL;
}

/* texts(column) -> nulls, lengths, bytes */
static PyObject *texts(PyObject *module, PyObject *capsule) {
    (void)module;
    Column column = {0};
    int type;
    PyObject *nulls = NULL, *lengths = NULL, *body = NULL, *result = NULL;
    if (!read_capsule(capsule, &column, &type)) return NULL;
    if (type != STRINGS) {
        refuse("of lists; expected strings");
        goto end;
    }
    size_t size = 0;
    for (size_t i = 0; i < column.n; i++) size += column.values[i].length;
    nulls = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)column.n);
    lengths = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(4 * column.n));
    body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!nulls || !lengths || !body) goto end;
    char *null = PyBytes_AsString(nulls), *length = PyBytes_AsString(lengths);
    char *to = PyBytes_AsString(body);
    Py_BEGIN_ALLOW_THREADS
    for (size_t i = 0; i < column.n; i++) {
        Value value = column.values[i];
        uint32_t n = (uint32_t)value.length;
        null[i] = !value.at;
        memcpy(length + 4 * i, &n, 4);
        if (n) memcpy(to, value.at, n);
        to += n;
    }
    Py_END_ALLOW_THREADS
    result = PyTuple_Pack(3, nulls, lengths, body);
end:
    Py_XDECREF(nulls);
    Py_XDECREF(lengths);
    Py_XDECREF(body);
    column_free(&column);
    return result;
}

/* Append a chunk of 64-bit numbers, 0 in the place of a null, and whether each is null. */
static const char *numbers_add(char **to, char **nulls, size_t *n, const struct ArrowArray *chunk) {
    size_t more = (size_t)chunk->length;
    char *grown = realloc(*to, 8 * (*n + more) + 1);
    if (grown) *to = grown;
    char *marks = realloc(*nulls, *n + more + 1);
    if (marks) *nulls = marks;
    if (!grown || !marks) return "no memory";
    const uint8_t *valid = chunk->buffers[0];
    const char *from = chunk->buffers[1];
    for (size_t k = 0; k < more; k++) {
        int64_t i = chunk->offset + (int64_t)k;
        int there = bit_is_set(valid, i);
        marks[*n + k] = (char)!there;
        if (there)
            memcpy(grown + 8 * (*n + k), from + 8 * i, 8);
        else
            memset(grown + 8 * (*n + k), 0, 8);
    }
    *n += more;
    return NULL;
}

/* numbers(column) -> nulls, bytes */
static PyObject *numbers(PyObject *module, PyObject *capsule) {
    (void)module;
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (!stream) return NULL;
    if (!stream->release) return refuse("one that was read before");
    struct ArrowSchema schema;
    struct ArrowArray chunk;
    const char *wrong = NULL;
    char *values = NULL, *nulls = NULL;
    size_t n = 0;
    if (stream->get_schema(stream, &schema)) {
        stream->release(stream);
        return refuse("of a type that cannot be read");
    }
    if (strcmp(schema.format, "l") && strcmp(schema.format, "g"))
        wrong = "neither of Int64 nor of Float64";
    schema.release(&schema);
    while (!wrong) {
        if (stream->get_next(stream, &chunk)) {
            wrong = "one that cannot be read";
            break;
        }
        if (!chunk.release) break;
        wrong = numbers_add(&values, &nulls, &n, &chunk);
        chunk.release(&chunk);
    }
    stream->release(stream);
    PyObject *result = wrong ? refuse(wrong)
                             : Py_BuildValue("y#y#", nulls ? nulls : "", (Py_ssize_t)n,
                                             values ? values : "", (Py_ssize_t)(8 * n));
    free(values);
    free(nulls);
    return result;
}

#define EACH(byte) (0x0101010101010101u * (byte))

/* A number of eight digits, all at once; `bad` gathers the bits of what is no digit. */
static inline uint64_t eight(const uint8_t *at, uint64_t *bad) {
    uint64_t text, n;
    memcpy(&text, at, sizeof text);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    text = __builtin_bswap64(text);
#endif
    n = (text & EACH(0x0F)) + 9 * (text >> 6 & EACH(1));
    uint64_t is_letter = (n + EACH(6)) >> 4 & EACH(1);
    *bad |= (text ^ (n + EACH('0') + is_letter * ('a' - '0' - 10))) | (n & EACH(0x10));
    n = (n | n >> 4) & 0x00FF00FF00FF00FFu;
    n = (n | n >> 8) & 0x0000FFFF0000FFFFu;
    return (n | n >> 16) & 0xFFFFFFFFu;
}

/* sum(ids) -> the sum of hexadecimal ids modulo 2^128, sixteen bytes, the lowest first */
static PyObject *sum(PyObject *module, PyObject *capsule) {
    (void)module;
    Column column = {0};
    int type;
    if (!read_capsule(capsule, &column, &type)) return NULL;
    unsigned __int128 total = 0;
    size_t i = 0, n = type == STRINGS ? column.n : 0;
    Py_BEGIN_ALLOW_THREADS
    for (; i < n; i++) {
        const uint8_t *at = column.values[i].at;
        size_t length = column.values[i].length, first = length % 8;
        if (!at || !length) break;
        uint8_t padded[8] = "00000000";
        uint64_t bad = 0;
        memcpy(padded + 8 - first, at, first);
        unsigned __int128 id = first ? eight(padded, &bad) : 0;
        for (size_t k = first; k < length; k += 8) id = id << 32 | eight(at + k, &bad);
        if (bad) break;
        total += id;
    }
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (type != STRINGS || i < column.n)
        PyErr_Format(PyExc_ValueError, "id %zu is not hexadecimal, in lower case", i);
    else
        result = PyBytes_FromStringAndSize((const char *)&total, sizeof total);
    column_free(&column);
    return result;
}

static PyMethodDef module_methods[] = {
    {"texts", texts, METH_O, "Read strings: which are null, their lengths, their bytes."},
    {"numbers", numbers, METH_O, "Read 64-bit numbers: which are null, and their bytes."},
    {"sum", sum, METH_O, "Add hexadecimal ids up, modulo 2^128."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_digests", "Bytes of columns in C.", -1, module_methods,
    NULL,                  NULL,       NULL,                     NULL};

PyMODINIT_FUNC PyInit__digests(void) { return PyModule_Create(&module_def); }
