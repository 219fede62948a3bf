/* Columns of a data frame, read where they lie: the Arrow C data interface.
 *
 * Covered: strings (u, U and views, vu), and lists of unsigned 32-bit numbers (+l and +L of I);
 * chunks, offsets, nulls. Not covered: every other type; a caller hears of it by name.
 *
 * Source: https://arrow.apache.org/docs/format/CDataInterface.html
 */

#ifndef STILLROOM_COLUMNS_H
#define STILLROOM_COLUMNS_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

/* A value of a column: bytes of a string, or numbers of a list. Null is NULL. */
typedef struct {
    const void *at;
    size_t length; /* bytes, or numbers */
} Value;

typedef struct {
    Value *values;
    size_t n, room;
    struct ArrowArray *chunks; /* keep the values alive */
    size_t n_chunks, room_chunks;
    char *rebuilt; /* texts that a normal form was put into */
} Column;

enum { STRINGS, LISTS };

static void column_free(Column *column) {
    for (size_t i = 0; i < column->n_chunks; i++) column->chunks[i].release(&column->chunks[i]);
    free(column->chunks);
    free(column->values);
    free(column->rebuilt);
    memset(column, 0, sizeof *column);
}

static int bit_is_set(const uint8_t *bits, int64_t i) {
    return !bits || bits[i >> 3] >> (i & 7) & 1;
}

/* The value at a place between two offsets; 0 if they are not in order. */
static int between(Value *value, const char *base, int64_t from, int64_t to, size_t width) {
    if (from < 0 || to < from) return 0;
    value->at = base ? base + (size_t)from * width : "";
    value->length = (size_t)(to - from);
    return 1;
}

static int view(Value *value, const struct ArrowArray *array, int64_t i) {
    const uint8_t *entry = (const uint8_t *)array->buffers[1] + 16 * i;
    int32_t length, buffer, offset;
    memcpy(&length, entry, 4);
    if (length < 0) return 0;
    value->length = (size_t)length;
    value->at = entry + 4;
    if (length > 12) {
        memcpy(&buffer, entry + 8, 4);
        memcpy(&offset, entry + 12, 4);
        if (buffer < 0 || buffer >= array->n_buffers - 3 || offset < 0) return 0;
        value->at = (const char *)array->buffers[2 + buffer] + offset;
    }
    return 1;
}

/* Point at the values of one chunk; NULL, or what is wrong. */
static const char *column_add(Column *column, const struct ArrowArray *array, const char *format) {
    size_t n = column->n + (size_t)array->length;
    if (n > column->room) {
        size_t room = n + column->room / 2;
        Value *values = realloc(column->values, room * sizeof *values);
        if (!values) return "no memory";
        column->values = values;
        column->room = room;
    }
    const uint8_t *valid = array->n_buffers ? array->buffers[0] : NULL;
    for (int64_t k = 0; k < array->length; k++) {
        Value *value = &column->values[column->n + (size_t)k];
        int64_t i = array->offset + k;
        *value = (Value){NULL, 0};
        if (!bit_is_set(valid, i)) continue;
        int ok;
        if (!strcmp(format, "vu")) {
            ok = view(value, array, i);
        } else if (format[0] == 'u' || format[0] == 'U') {
            const char *base = array->buffers[2];
            if (format[0] == 'u') {
                const int32_t *offsets = array->buffers[1];
                ok = between(value, base, offsets[i], offsets[i + 1], 1);
            } else {
                const int64_t *offsets = array->buffers[1];
                ok = between(value, base, offsets[i], offsets[i + 1], 1);
            }
        } else {
            const struct ArrowArray *inner = array->children[0];
            const uint32_t *base = inner->buffers[1];
            if (base) base += inner->offset;
            if (format[1] == 'l') {
                const int32_t *offsets = array->buffers[1];
                ok = between(value, (const char *)base, offsets[i], offsets[i + 1], 4);
            } else {
                const int64_t *offsets = array->buffers[1];
                ok = between(value, (const char *)base, offsets[i], offsets[i + 1], 4);
            }
            if (inner->null_count > 0) return "a list with a null in it";
        }
        if (!ok) return "a broken column";
        if (value->length > UINT32_MAX - 64) return "a value of more than 4 billion bytes";
    }
    column->n = n;
    return NULL;
}

/* Read a whole stream and release it; NULL, or what is wrong. Frees nothing of the column. */
static const char *column_read(Column *column, struct ArrowArrayStream *stream, int *type) {
    struct ArrowSchema schema;
    const char *wrong = NULL;
    if (!stream->release) return "a column that was read before";
    if (stream->get_schema(stream, &schema)) {
        stream->release(stream);
        return "a column whose type cannot be read";
    }
    const char *format = schema.format;
    if (!strcmp(format, "vu") || !strcmp(format, "u") || !strcmp(format, "U"))
        *type = STRINGS;
    else if ((!strcmp(format, "+l") || !strcmp(format, "+L")) &&
             !strcmp(schema.children[0]->format, "I"))
        *type = LISTS;
    else
        wrong = "neither strings nor lists of UInt32";
    while (!wrong) {
        if (column->n_chunks == column->room_chunks) {
            size_t room = column->room_chunks ? 2 * column->room_chunks : 4;
            struct ArrowArray *chunks = realloc(column->chunks, room * sizeof *chunks);
            if (!chunks) {
                wrong = "no memory";
                break;
            }
            column->chunks = chunks;
            column->room_chunks = room;
        }
        struct ArrowArray *chunk = &column->chunks[column->n_chunks];
        if (stream->get_next(stream, chunk)) {
            wrong = "a column that cannot be read";
            break;
        }
        if (!chunk->release) break;
        column->n_chunks++;
        wrong = column_add(column, chunk, format);
    }
    schema.release(&schema);
    stream->release(stream);
    return wrong;
}

/* Read a column from the capsule of an Arrow stream; 0 with an exception if it is none. */
static int read_capsule(PyObject *capsule, Column *column, int *type) {
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (!stream) return 0;
    const char *wrong = column_read(column, stream, type);
    if (!wrong) return 1;
    column_free(column);
    if (!strcmp(wrong, "no memory"))
        PyErr_NoMemory();
    else
        PyErr_Format(PyExc_TypeError, "the column is %s; expected strings or lists of UInt32",
                     wrong);
    return 0;
}

static int is_beyond_ascii(const char *at, size_t length) {
    uint8_t all = 0;
    for (size_t i = 0; i < length; i++) all |= (uint8_t)at[i];
    return all >> 7;
}

/* Put a normal form in the place of each piece, between spaces, that has bytes beyond ASCII.
 *
 * No step of the normal form looks across a space, so the form of a text is made of the forms of its
 * pieces. Returns NULL, or what is wrong. */
static const char *put_forms(Column *raw, const Column *forms) {
    size_t size = 1, used = 0;
    for (size_t i = 0; i < forms->n; i++) size += forms->values[i].length;
    for (size_t i = 0; i < raw->n; i++)
        if (is_beyond_ascii(raw->values[i].at, raw->values[i].length))
            size += raw->values[i].length;
    char *to = raw->rebuilt = malloc(size);
    if (!to) return "no memory";
    for (size_t i = 0; i < raw->n; i++) {
        Value *value = &raw->values[i];
        if (!is_beyond_ascii(value->at, value->length)) continue;
        const char *from = value->at, *end = from + value->length;
        value->at = to;
        while (from < end) {
            const char *stop = memchr(from, ' ', (size_t)(end - from));
            Value piece = {from, (size_t)((stop ? stop : end) - from)};
            from += piece.length;
            if (is_beyond_ascii(piece.at, piece.length)) {
                if (used == forms->n) return "longer than its normal forms";
                piece = forms->values[used++];
            }
            if (piece.length) memcpy(to, piece.at, piece.length);
            to += piece.length;
            if (stop) *to++ = *from++;
        }
        value->length = (size_t)(to - (const char *)value->at);
    }
    return used == forms->n ? NULL : "shorter than its normal forms";
}

/* Read texts, with the normal forms of their pieces that are not plain ASCII. */
__attribute__((unused)) static int read_texts(PyObject *capsule, PyObject *form_capsule, Column *raw,
                                              Column *forms, int *type) {
    int form_type;
    if (!read_capsule(capsule, raw, type)) return 0;
    if (form_capsule == Py_None) return 1;
    if (!read_capsule(form_capsule, forms, &form_type)) return 0;
    const char *wrong = "of numbers";
    if (*type == STRINGS && form_type == STRINGS) wrong = put_forms(raw, forms);
    if (!wrong) return 1;
    if (!strcmp(wrong, "no memory"))
        PyErr_NoMemory();
    else
        PyErr_Format(PyExc_ValueError, "the column is %s", wrong);
    return 0;
}

#endif
