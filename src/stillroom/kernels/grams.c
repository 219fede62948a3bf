/* N-grams of words or tokens: which texts share a run with an item.
 *
 * Ngrams holds the n-grams of items. Every word of an item gets a number; a text's words are looked
 * up, and a word that no item has ends every run. Runs of numbers are found by a rolling hash and
 * compared number by number, so a hit is never due to a hash alone. ngrams_reference.py says the
 * same in plain Python.
 *
 * The interpreter lock is released while texts are read; an index is only read by then, so threads
 * may share it.
 */

#include "columns.h"
#include "words.h"

#define NONE UINT32_MAX

static size_t power_of_two(size_t least) {
    size_t n = 64;
    while (n < least) n *= 2;
    return n;
}

/* ---- Vocabulary: the words of the items, numbered in the order in which they were met ---- */

typedef struct {
    uint64_t key;    /* the word itself up to 8 bytes, else its hash */
    uint32_t length; /* bytes; 0 is a free slot */
    uint32_t number;
} Entry;

typedef struct {
    Entry *entries;
    size_t mask, n;
    uint8_t *bytes; /* words of more than 8 bytes */
    size_t n_bytes, room_bytes;
    size_t *starts; /* by number */
    size_t room;
} Vocabulary;

static void vocabulary_free(Vocabulary *v) {
    free(v->entries);
    free(v->bytes);
    free(v->starts);
}

static inline Entry *vocabulary_slot(const Vocabulary *v, const uint8_t *word, uint32_t length,
                                     uint64_t key) {
    size_t at = (size_t)mix(key, length) & v->mask;
    for (;; at = (at + 1) & v->mask) {
        Entry *entry = &v->entries[at];
        if (!entry->length) return entry;
        if (entry->key == key && entry->length == length &&
            (length <= 8 || !memcmp(v->bytes + v->starts[entry->number], word, length)))
            return entry;
    }
}

static inline uint64_t word_key(const uint8_t *word, uint32_t length) {
    return length <= 8 ? load(word, length) : hash_bytes(word, length);
}

static inline uint32_t vocabulary_find(const Vocabulary *v, const uint8_t *word, uint32_t length) {
    const Entry *entry = vocabulary_slot(v, word, length, word_key(word, length));
    return entry->length ? entry->number : NONE;
}

static int vocabulary_grow(Vocabulary *v, uint32_t length) {
    if (v->n == v->room) {
        size_t room = 2 * v->room + 1024;
        size_t *starts = realloc(v->starts, room * sizeof *starts);
        if (!starts) return 0;
        v->starts = starts;
        v->room = room;
    }
    if (v->n_bytes + length > v->room_bytes) {
        size_t room = 2 * v->room_bytes + length + 4096;
        uint8_t *bytes = realloc(v->bytes, room);
        if (!bytes) return 0;
        v->bytes = bytes;
        v->room_bytes = room;
    }
    if (!v->entries || 2 * v->n > v->mask) {
        size_t room = power_of_two(4 * v->n + 1024);
        Entry *old = v->entries, *entries = calloc(room, sizeof *entries);
        if (!entries) return 0;
        size_t old_room = old ? v->mask + 1 : 0;
        v->entries = entries;
        v->mask = room - 1;
        for (size_t i = 0; i < old_room; i++) {
            if (!old[i].length) continue;
            size_t at = (size_t)mix(old[i].key, old[i].length) & v->mask;
            while (entries[at].length) at = (at + 1) & v->mask;
            entries[at] = old[i];
        }
        free(old);
    }
    return 1;
}

/* Number a word; NONE if memory is short. */
static uint32_t vocabulary_add(Vocabulary *v, const uint8_t *word, uint32_t length) {
    if (v->n >= NONE - 1 || !vocabulary_grow(v, length)) return NONE;
    uint64_t key = word_key(word, length);
    Entry *entry = vocabulary_slot(v, word, length, key);
    if (entry->length) return entry->number;
    *entry = (Entry){key, length, (uint32_t)v->n};
    v->starts[v->n] = v->n_bytes;
    if (length > 8) {
        memcpy(v->bytes + v->n_bytes, word, length);
        v->n_bytes += length;
    }
    return (uint32_t)v->n++;
}

/* ---- The index ---- */

typedef struct {
    uint64_t hash;
    uint32_t place; /* of its first occurrence, in `units`; NONE is a free slot */
    uint32_t item;
} Gram;

typedef struct {
    size_t n;        /* units in a run */
    int type;        /* STRINGS or LISTS */
    int whole;       /* texts shorter than n are one run */
    uint64_t power;  /* BASE to the n - 1 */
    Vocabulary words;
    uint32_t *units; /* of all items, one after the other */
    size_t *starts;  /* of each item in `units`, and the end of the last */
    size_t n_items, n_units, room_units;
    Gram *grams;
    size_t gram_mask;
    uint8_t *maybe; /* a bit for each gram, found by its hash: most texts ask for what is not there */
    size_t maybe_mask;
    uint32_t *next; /* by place: where the same gram stands next; NONE at its last */
} Index;

#define BASE 0x9FB21C651E98DF25u
#define SPARSE 16 /* bits of `maybe` for each gram */

static void index_free(Index *x) {
    vocabulary_free(&x->words);
    free(x->units);
    free(x->starts);
    free(x->grams);
    free(x->maybe);
    free(x->next);
}

static inline uint64_t unit_code(uint32_t unit) { return mix(unit, 0); }

static inline uint64_t gram_finish(uint64_t rolled, size_t length) { return mix(rolled, length); }

static inline int maybe_there(const Index *x, uint64_t hash) {
    size_t bit = (size_t)(hash >> 20) & x->maybe_mask;
    return x->maybe[bit >> 3] >> (bit & 7) & 1;
}

static inline size_t item_length(const Index *x, size_t item) {
    return x->starts[item + 1] - x->starts[item];
}

/* The slot of a gram, or the free slot where it belongs. */
static inline Gram *gram_slot(const Index *x, uint64_t hash, const uint32_t *units, size_t length) {
    size_t at = (size_t)hash & x->gram_mask;
    for (;; at = (at + 1) & x->gram_mask) {
        Gram *gram = &x->grams[at];
        if (gram->place == NONE) return gram;
        if (gram->hash != hash) continue;
        size_t whole = item_length(x, gram->item);
        if ((whole < x->n ? whole : x->n) == length &&
            !memcmp(x->units + gram->place, units, length * sizeof *units))
            return gram;
    }
}

/* A walk over the grams of a text, in order. */
typedef struct {
    const uint32_t *units;
    size_t total, at; /* units in all, and read */
    size_t known;     /* units of the window so far; words that no item has empty it */
    uint64_t rolled;
    size_t start, length; /* of the gram that was found */
    uint64_t hash;
} Walk;

static inline int walk_next(const Index *x, Walk *w) {
    int is_short = w->total < x->n;
    if (is_short && !x->whole) return 0;
    while (w->at < w->total) {
        uint32_t unit = w->units[w->at];
        if (unit == NONE && x->type == STRINGS) {
            w->known = 0;
            w->rolled = 0;
            w->at++;
            continue;
        }
        if (w->known == x->n)
            w->rolled -= unit_code(w->units[w->at - x->n]) * x->power;
        else
            w->known++;
        w->rolled = w->rolled * BASE + unit_code(unit);
        w->at++;
        if (w->known == (is_short ? w->total : x->n)) {
            w->length = w->known;
            w->start = w->at - w->known;
            w->hash = gram_finish(w->rolled, w->known);
            return 1;
        }
    }
    return 0;
}

static int index_reserve(Index *x, size_t more) {
    if (x->n_units + more >= NONE) return 0;
    if (x->n_units + more > x->room_units) {
        size_t room = 2 * x->room_units + more + 4096;
        uint32_t *units = realloc(x->units, room * sizeof *units);
        if (!units) return 0;
        x->units = units;
        x->room_units = room;
    }
    return 1;
}

/* Index the items; 0 if memory is short or there are 4 billion words. */
static int index_build(Index *x, const Column *raw) {
    Splitter splitter = {0};
    int ok = 0;
    x->n_items = raw->n;
    if (!(x->starts = malloc((raw->n + 1) * sizeof *x->starts))) goto end;
    if (!vocabulary_grow(&x->words, 0) || !index_reserve(x, 0)) goto end;
    for (size_t i = 0; i < raw->n; i++) {
        x->starts[i] = x->n_units;
        Value value = raw->values[i];
        if (x->type == LISTS) {
            if (!index_reserve(x, value.length)) goto end;
            if (value.length)
                memcpy(x->units + x->n_units, value.at, value.length * sizeof *x->units);
            x->n_units += value.length;
            continue;
        }
        size_t n = value.at ? split(&splitter, value.at, value.length) : 0;
        if (n == SIZE_MAX || !index_reserve(x, n)) goto end;
        for (size_t k = 0; k < n; k++) {
            Word word = splitter.words[k];
            uint32_t number = vocabulary_add(&x->words, splitter.text + word.start, word.length);
            if (number == NONE) goto end;
            x->units[x->n_units++] = number;
        }
    }
    x->starts[x->n_items] = x->n_units;

    size_t slots = power_of_two(2 * x->n_units), bits = power_of_two(SPARSE * x->n_units);
    uint32_t *last = malloc((x->n_units + 1) * sizeof *last); /* by first place: the last so far */
    x->gram_mask = slots - 1;
    x->maybe_mask = bits - 1;
    x->grams = malloc(slots * sizeof *x->grams);
    x->maybe = calloc(bits / 8, 1);
    x->next = malloc((x->n_units + 1) * sizeof *x->next);
    if (!x->grams || !x->maybe || !x->next || !last) {
        free(last);
        goto end;
    }
    for (size_t i = 0; i < slots; i++) x->grams[i].place = NONE;
    for (size_t item = 0; item < x->n_items; item++) {
        Walk w = {.units = x->units + x->starts[item], .total = item_length(x, item)};
        while (walk_next(x, &w)) {
            uint32_t place = (uint32_t)(x->starts[item] + w.start);
            Gram *gram = gram_slot(x, w.hash, w.units + w.start, w.length);
            x->next[place] = NONE;
            if (gram->place == NONE) {
                size_t bit = (size_t)(w.hash >> 20) & x->maybe_mask;
                *gram = (Gram){w.hash, place, (uint32_t)item};
                x->maybe[bit >> 3] |= (uint8_t)(1u << (bit & 7));
            } else {
                x->next[last[gram->place]] = place;
            }
            last[gram->place] = place;
        }
    }
    free(last);
    ok = 1;
end:
    splitter_free(&splitter);
    return ok;
}

/* ---- Finding ---- */

typedef struct {
    uint32_t text, item, start, length, shared;
} Overlap;

typedef struct {
    Overlap *rows;
    size_t n, room;
} Found;

static int found_add(Found *found, Overlap row) {
    if (found->n == found->room) {
        size_t room = 2 * found->room + 256;
        Overlap *rows = realloc(found->rows, room * sizeof *rows);
        if (!rows) return 0;
        found->rows = rows;
        found->room = room;
    }
    found->rows[found->n++] = row;
    return 1;
}

/* The item that a place lies in. */
static size_t item_of(const Index *x, size_t place) {
    size_t low = 0, high = x->n_items;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (x->starts[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Extend a shared gram in every item that has it. A run that could begin one word earlier was met
 * there, and was longer. */
static void extend(const Index *x, const Walk *w, const Gram *gram, Overlap *best) {
    const uint32_t *units = w->units;
    size_t start = w->start;
    for (uint32_t place = gram->place; place != NONE; place = x->next[place]) {
        size_t item = place == gram->place ? gram->item : item_of(x, place);
        size_t end = x->starts[item + 1];
        if (start && place > x->starts[item] && units[start - 1] == x->units[place - 1]) continue;
        size_t length = x->n;
        while (start + length < w->total && place + length < end &&
               units[start + length] == x->units[place + length])
            length++;
        /* The first hit has set the best to itself: the first gram, in the first item. */
        if (length > best->length) {
            best->item = (uint32_t)item;
            best->start = (uint32_t)start;
            best->length = (uint32_t)length;
        }
    }
}

/* Find the texts that share a gram; 0 if memory is short. */
static int index_find(const Index *x, const Column *raw, int longest,
                      Found *found) {
    Splitter splitter = {0};
    uint32_t *numbers = NULL;
    size_t room = 0;
    int ok = 0;
    for (size_t i = 0; i < raw->n; i++) {
        Value value = raw->values[i];
        if (!value.at) continue;
        const uint32_t *units = value.at;
        size_t total = value.length;
        if (x->type == STRINGS) {
            total = split(&splitter, value.at, value.length);
            if (total == SIZE_MAX) goto end;
            if (total > room) {
                free(numbers);
                room = total + total / 2 + 256;
                if (!(numbers = malloc(room * sizeof *numbers))) goto end;
            }
            for (size_t k = 0; k < total; k++) {
                Word word = splitter.words[k];
                numbers[k] = vocabulary_find(&x->words, splitter.text + word.start, word.length);
            }
            units = numbers;
        }
        Overlap row = {(uint32_t)i, 0, 0, 0, 0};
        Walk w = {.units = units, .total = total};
        while (walk_next(x, &w)) {
            if (!maybe_there(x, w.hash)) continue;
            const Gram *gram = gram_slot(x, w.hash, units + w.start, w.length);
            if (gram->place == NONE) continue;
            if (!row.shared++) {
                row.item = gram->item;
                row.start = (uint32_t)w.start;
                row.length = (uint32_t)w.length;
            }
            if (longest && w.length == x->n) extend(x, &w, gram, &row);
        }
        if (row.shared && !found_add(found, row)) goto end;
    }
    ok = 1;
end:
    splitter_free(&splitter);
    free(numbers);
    return ok;
}

/* ---- The Python type ---- */

typedef struct {
    PyObject_HEAD
    Index index;
} NgramsObject;

static PyObject *Ngrams_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *raw_capsule, *form_capsule;
    Py_ssize_t n;
    int whole;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "no keywords are taken");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOnp", &raw_capsule, &form_capsule, &n, &whole)) return NULL;
    if (n < 1) {
        PyErr_Format(PyExc_ValueError, "n is %zd; expected 1 or above", n);
        return NULL;
    }
    Column raw = {0}, forms = {0};
    int text_type, ok;
    NgramsObject *self = NULL;
    if (!read_texts(raw_capsule, form_capsule, &raw, &forms, &text_type)) goto end;
    self = (NgramsObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self) {
        Index *x = &self->index;
        x->n = (size_t)n;
        x->type = text_type;
        x->whole = whole;
        x->power = 1;
        Py_BEGIN_ALLOW_THREADS
        uint64_t square = BASE;
        for (size_t left = x->n - 1; left; left >>= 1, square *= square)
            if (left & 1) x->power *= square;
        ok = index_build(x, &raw);
        Py_END_ALLOW_THREADS
        if (!ok) {
            Py_CLEAR(self);
            PyErr_NoMemory();
        }
    }
end:
    column_free(&raw);
    column_free(&forms);
    return (PyObject *)self;
}

static void Ngrams_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    index_free(&((NgramsObject *)object)->index);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *Ngrams_find(PyObject *object, PyObject *args) {
    const Index *x = &((NgramsObject *)object)->index;
    PyObject *raw_capsule, *form_capsule, *result = NULL;
    int longest, type, ok;
    if (!PyArg_ParseTuple(args, "OOp", &raw_capsule, &form_capsule, &longest)) return NULL;
    Column raw = {0}, forms = {0};
    Found found = {0};
    if (!read_texts(raw_capsule, form_capsule, &raw, &forms, &type)) goto end;
    if (type != x->type) {
        PyErr_SetString(PyExc_TypeError, "texts and items are of two types; expected the same");
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    ok = index_find(x, &raw, longest, &found);
    Py_END_ALLOW_THREADS
    if (ok)
        result = PyBytes_FromStringAndSize((const char *)found.rows,
                                           (Py_ssize_t)(found.n * sizeof *found.rows));
    else
        PyErr_NoMemory();
end:
    free(found.rows);
    column_free(&raw);
    column_free(&forms);
    return result;
}

static PyObject *words(PyObject *module, PyObject *form) {
    (void)module;
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(form, &length);
    if (!text) return NULL;
    Splitter s = {0};
    size_t n = split(&s, (const uint8_t *)text, (size_t)length);
    PyObject *list = n == SIZE_MAX ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *word = PyUnicode_FromStringAndSize((const char *)s.text + s.words[i].start,
                                                     s.words[i].length);
        if (!word || PyList_Append(list, word)) Py_CLEAR(list);
        Py_XDECREF(word);
    }
    splitter_free(&s);
    return list;
}

static PyMethodDef ngrams_methods[] = {
    {"find", Ngrams_find, METH_VARARGS, "Find texts: rows of five 32-bit numbers, as bytes."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot ngrams_slots[] = {{Py_tp_new, Ngrams_new},
                                     {Py_tp_dealloc, Ngrams_dealloc},
                                     {Py_tp_methods, ngrams_methods},
                                     {Py_tp_doc, "The n-grams of items."},
                                     {0, NULL}};

static PyType_Spec ngrams_spec = {"stillroom.kernels._grams.Ngrams", sizeof(NgramsObject), 0,
                                  Py_TPFLAGS_DEFAULT, ngrams_slots};

static PyMethodDef module_methods[] = {
    {"words", words, METH_O, "Split a text in normal form into words."}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_grams", "N-grams in C.", -1, module_methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__grams(void) {
    letters_fill();
    PyObject *module = PyModule_Create(&module_def);
    if (!module) return NULL;
    PyObject *type = PyType_FromSpec(&ngrams_spec);
    if (!type || PyModule_AddObjectRef(module, "Ngrams", type)) {
        Py_XDECREF(type);
        Py_DECREF(module);
        return NULL;
    }
    Py_DECREF(type);
    return module;
}
