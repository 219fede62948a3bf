/* MinHash: which texts are probably alike, without comparing them.
 *
 * A text is the set of its shingles: runs of n words, or of n characters of its normal form. Each of
 * bands x rows hash functions gives the text the least hash of its shingles; two texts agree in one
 * with a chance that is the Jaccard similarity of their sets. Texts that agree in all rows of a band
 * share a bucket. minhash_reference.py says the same in plain Python.
 *
 * Keys lie band by band: the key of text i in band b is keys[b * n + i]; 0 is a text without
 * shingles, which is in no bucket. They are the same on every machine.
 *
 * Source: Broder 1997, "On the resemblance and containment of documents"; bands and rows as in
 * Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.
 */

#include "columns.h"
#include "words.h"

#define NONE UINT32_MAX
#define BASE 0x9FB21C651E98DF25u
#define LANES 32 /* hash functions that are worked on together */
#define MOST 4096

/* The same integers on every instruction set; only the speed differs. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define FASTEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTEST
#endif

typedef struct {
    uint32_t times[MOST], plus[MOST]; /* hash function j of x: times[j] * x + plus[j], modulo 2^32 */
    size_t n;                         /* functions, a multiple of LANES */
} Functions;

/* Least hash of each of LANES functions over all shingles. */
FASTEST static void least(const uint32_t *shingles, size_t n, const uint32_t *times,
                          const uint32_t *plus, uint32_t *to) {
    uint32_t a[LANES], b[LANES], m[LANES];
    for (size_t j = 0; j < LANES; j++) {
        a[j] = times[j];
        b[j] = plus[j];
        m[j] = UINT32_MAX;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t x = shingles[i];
        for (size_t j = 0; j < LANES; j++) {
            uint32_t h = a[j] * x + b[j];
            m[j] = h < m[j] ? h : m[j];
        }
    }
    for (size_t j = 0; j < LANES; j++) to[j] = m[j];
}

/* Draw the functions from the seed. */
static void draw(Functions *f, size_t n, uint64_t seed) {
    f->n = (n + LANES - 1) / LANES * LANES;
    for (size_t j = 0; j < f->n; j++) {
        uint64_t number = mix(seed, j);
        f->times[j] = (uint32_t)number | 1;
        f->plus[j] = (uint32_t)(number >> 32);
    }
}

typedef struct {
    Splitter splitter;
    uint64_t *codes;
    uint32_t *shingles;
    size_t room;
} Scratch;

static void scratch_free(Scratch *s) {
    splitter_free(&s->splitter);
    free(s->codes);
    free(s->shingles);
}

static int scratch_grow(Scratch *s, size_t n) {
    if (n <= s->room) return 1;
    size_t room = n + n / 2 + 1024;
    free(s->codes);
    free(s->shingles);
    s->room = 0;
    s->codes = malloc(room * sizeof *s->codes);
    s->shingles = malloc(room * sizeof *s->shingles);
    if (!s->codes || !s->shingles) return 0;
    s->room = room;
    return 1;
}

/* One code for each word; SIZE_MAX if memory is short. */
static size_t word_codes(Scratch *s, const uint8_t *text, size_t length) {
    size_t n = split(&s->splitter, text, length);
    if (n == SIZE_MAX || !scratch_grow(s, n)) return SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        Word word = s->splitter.words[i];
        s->codes[i] = hash_bytes(s->splitter.text + word.start, word.length);
    }
    return n;
}

/* One code for each character, a run of spaces being one, those at the ends none. */
static size_t character_codes(Scratch *s, const uint8_t *text, size_t length) {
    if (!scratch_grow(s, length)) return SIZE_MAX;
    const uint8_t *end = text + length;
    size_t n = 0;
    int space = 0;
    while (text < end) {
        uint32_t c = *text;
        size_t width = 1;
        if (c == ' ' || (c >= '\t' && c <= '\r')) {
            space = n > 0;
            text++;
            continue;
        }
        if (c >= 0x80)
            width = decode(text, end, &c);
        else if (c - 'A' < 26)
            c |= 0x20;
        text += width;
        if (space) s->codes[n++] = mix(' ', 1);
        space = 0;
        s->codes[n++] = mix(c, 1);
    }
    return n;
}

/* Turn n codes into hashes of runs of `size`; fewer than that are one run. */
static size_t shingle(Scratch *s, size_t n, size_t size) {
    if (!n) return 0;
    if (size > n) size = n;
    uint64_t rolled = 0, power = 1;
    for (size_t i = 1; i < size; i++) power *= BASE;
    for (size_t i = 0; i < n; i++) {
        if (i >= size) rolled -= s->codes[i - size] * power;
        rolled = rolled * BASE + s->codes[i];
        if (i + 1 >= size) s->shingles[i + 1 - size] = (uint32_t)mix(rolled, size);
    }
    return n - size + 1;
}

/* Turn a text into the hashes of its shingles; SIZE_MAX if memory is short. */
static size_t shingles_of(Scratch *s, Value value, int words, size_t size) {
    if (!value.at || !value.length) return 0;
    size_t n = words ? word_codes(s, value.at, value.length)
                     : character_codes(s, value.at, value.length);
    return n == SIZE_MAX ? n : shingle(s, n, size);
}

/* Write the keys of texts from place `from` on; 0 if memory is short. */
static int write_keys(const Column *texts, uint64_t *keys, size_t from, size_t total, int words,
                      size_t size, size_t bands, size_t rows, const Functions *f) {
    Scratch s = {0};
    uint32_t signature[MOST];
    int ok = 1;
    for (size_t i = 0; i < texts->n; i++) {
        size_t n_shingles = shingles_of(&s, texts->values[i], words, size);
        if (n_shingles == SIZE_MAX) {
            ok = 0;
            break;
        }
        for (size_t j = 0; j < f->n && n_shingles; j += LANES)
            least(s.shingles, n_shingles, f->times + j, f->plus + j, signature + j);
        for (size_t b = 0; b < bands; b++) {
            uint64_t key = 0;
            if (n_shingles) {
                key = rows;
                for (size_t r = 0; r < rows; r++) key = mix(key, signature[b * rows + r]);
                key += !key;
            }
            keys[b * total + from + i] = key;
        }
    }
    scratch_free(&s);
    return ok;
}

/* keys(texts, forms, keys, from, total, words, size, bands, rows, seed) */
static PyObject *keys(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *form_capsule, *result = NULL;
    Py_buffer buffer;
    Py_ssize_t from, total, size, bands, rows;
    unsigned long long seed;
    int words, type, ok;
    if (!PyArg_ParseTuple(args, "OOw*nnpnnnK", &capsule, &form_capsule, &buffer, &from, &total,
                          &words, &size, &bands, &rows, &seed))
        return NULL;
    Column texts = {0}, forms = {0};
    Functions *f = malloc(sizeof *f);
    if (!f) {
        PyErr_NoMemory();
        goto end;
    }
    if (!read_texts(capsule, form_capsule, &texts, &forms, &type)) goto end;
    if (type != STRINGS) {
        PyErr_SetString(PyExc_TypeError, "the column is lists; expected strings");
        goto end;
    }
    if (size < 1 || bands < 1 || rows < 1 || bands > MOST || rows > MOST / bands || from < 0 ||
        total < from + (Py_ssize_t)texts.n || total >= NONE || buffer.len / 8 / bands < total) {
        PyErr_SetString(PyExc_ValueError, "sizes that do not fit");
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    draw(f, (size_t)(bands * rows), seed);
    ok = write_keys(&texts, buffer.buf, (size_t)from, (size_t)total, words, (size_t)size,
                    (size_t)bands, (size_t)rows, f);
    Py_END_ALLOW_THREADS
    result = ok ? Py_NewRef(Py_None) : PyErr_NoMemory();
end:
    free(f);
    column_free(&texts);
    column_free(&forms);
    PyBuffer_Release(&buffer);
    return result;
}

/* ---- Similarity ---- */

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static size_t sort_unique(uint32_t *numbers, size_t n) {
    size_t kept = 0;
    qsort(numbers, n, sizeof *numbers, ascending);
    for (size_t i = 0; i < n; i++)
        if (!kept || numbers[i] != numbers[kept - 1]) numbers[kept++] = numbers[i];
    return kept;
}

/* Compare the shingles of texts pair by pair: the share of those of either that both have. */
static int compare(const Column *texts, const Column *others, int words, size_t size,
                   double *shares) {
    Scratch s = {0}, t = {0};
    int ok = 1;
    for (size_t i = 0; i < texts->n && ok; i++) {
        size_t n = shingles_of(&s, texts->values[i], words, size);
        size_t m = shingles_of(&t, others->values[i], words, size), both = 0;
        ok = n != SIZE_MAX && m != SIZE_MAX;
        if (!ok) break;
        n = sort_unique(s.shingles, n);
        m = sort_unique(t.shingles, m);
        for (size_t j = 0, k = 0; j < n && k < m;) {
            uint32_t x = s.shingles[j], y = t.shingles[k];
            both += x == y;
            j += x <= y;
            k += y <= x;
        }
        shares[i] = n + m ? (double)both / (double)(n + m - both) : 0.0;
    }
    scratch_free(&s);
    scratch_free(&t);
    return ok;
}

/* similarity(texts, forms, others, forms of others, words, size) -> doubles */
static PyObject *similarity(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsules[4], *result = NULL;
    Py_ssize_t size;
    int words, type, other_type, ok;
    if (!PyArg_ParseTuple(args, "OOOOpn", &capsules[0], &capsules[1], &capsules[2], &capsules[3],
                          &words, &size))
        return NULL;
    Column texts = {0}, forms = {0}, others = {0}, other_forms = {0};
    if (!read_texts(capsules[0], capsules[1], &texts, &forms, &type) ||
        !read_texts(capsules[2], capsules[3], &others, &other_forms, &other_type))
        goto end;
    if (type != STRINGS || other_type != STRINGS || texts.n != others.n || size < 1) {
        PyErr_SetString(PyExc_ValueError, "sizes or types that do not fit");
        goto end;
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(texts.n * sizeof(double)));
    if (!result) goto end;
    double *shares = (double *)PyBytes_AsString(result);
    Py_BEGIN_ALLOW_THREADS
    ok = compare(&texts, &others, words, (size_t)size, shares);
    Py_END_ALLOW_THREADS
    if (!ok) {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
end:
    column_free(&texts);
    column_free(&forms);
    column_free(&others);
    column_free(&other_forms);
    return result;
}

/* ---- Buckets ---- */

/* Replace each key of a band by the first text that has it; NONE for a text without shingles. */
static int first_of_bucket(uint64_t *keys, size_t n) {
    size_t slots = 64;
    while (slots < 2 * n) slots *= 2;
    struct Slot {
        uint32_t tag, first;
    } *table = malloc(slots * sizeof *table);
    uint32_t *firsts = malloc((n + 1) * sizeof *firsts);
    if (table && firsts) {
        memset(table, 0xFF, slots * sizeof *table);
        for (size_t i = 0; i < n; i++) {
            uint64_t key = keys[i];
            if (i + 8 < n) __builtin_prefetch(&table[keys[i + 8] & (slots - 1)]);
            firsts[i] = NONE;
            if (!key) continue;
            size_t at = key & (slots - 1);
            uint32_t tag = (uint32_t)(key >> 32);
            while (table[at].first != NONE &&
                   (table[at].tag != tag || keys[table[at].first] != key))
                at = (at + 1) & (slots - 1);
            if (table[at].first == NONE) {
                table[at].tag = tag;
                table[at].first = (uint32_t)i;
            }
            firsts[i] = table[at].first;
        }
        for (size_t i = 0; i < n; i++) keys[i] = (uint64_t)NONE << 32 | firsts[i];
    }
    int ok = table && firsts;
    free(table);
    free(firsts);
    return ok;
}

static PyObject *buckets(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer buffer;
    int ok;
    if (!PyArg_ParseTuple(args, "w*", &buffer)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    ok = first_of_bucket(buffer.buf, (size_t)buffer.len / 8);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    return ok ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

/* In what `buckets` left, the lower half of a number is the first text of the bucket; the upper half
 * of the number of that first text is the bucket's survivor. */
static void greedy(uint64_t *firsts, size_t n, size_t bands, uint32_t *lost_to) {
    for (size_t i = 0; i < n; i++) {
        uint32_t survivor = NONE;
        for (size_t b = 0; b < bands; b++) {
            uint32_t first = (uint32_t)firsts[b * n + i];
            if (first == NONE) continue;
            uint32_t here = (uint32_t)(firsts[b * n + first] >> 32);
            if (here < survivor) survivor = here;
        }
        lost_to[i] = survivor;
        if (survivor != NONE) continue;
        for (size_t b = 0; b < bands; b++) {
            uint32_t first = (uint32_t)firsts[b * n + i];
            if (first == NONE) continue;
            uint64_t *of_first = &firsts[b * n + first];
            *of_first = (uint64_t)i << 32 | (uint32_t)*of_first;
        }
    }
}

static uint32_t root(uint32_t *parents, uint32_t i) {
    while (parents[i] != i) i = parents[i] = parents[parents[i]];
    return i;
}

/* Chains of shared buckets are one group; the first text of a group stays. */
static void unite(const uint64_t *firsts, size_t n, size_t bands, uint32_t *lost_to) {
    for (size_t i = 0; i < n; i++) lost_to[i] = (uint32_t)i;
    for (size_t b = 0; b < bands; b++) {
        for (size_t i = 0; i < n; i++) {
            uint32_t first = (uint32_t)firsts[b * n + i];
            if (first == NONE || first == i) continue;
            uint32_t x = root(lost_to, (uint32_t)i), y = root(lost_to, first);
            if (x < y)
                lost_to[y] = x;
            else
                lost_to[x] = y;
        }
    }
    for (size_t i = n; i-- > 0;) lost_to[i] = root(lost_to, (uint32_t)i);
    for (size_t i = 0; i < n; i++)
        if (lost_to[i] == i) lost_to[i] = NONE;
}

/* lost_to(firsts, bands, chains) -> 32-bit numbers */
static PyObject *lost_to(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer buffer;
    Py_ssize_t bands;
    int chains;
    if (!PyArg_ParseTuple(args, "w*np", &buffer, &bands, &chains)) return NULL;
    PyObject *result = NULL;
    if (bands < 1 || buffer.len % (8 * bands)) {
        PyErr_SetString(PyExc_ValueError, "sizes that do not fit");
    } else {
        size_t n = (size_t)(buffer.len / 8 / bands);
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(4 * n));
        if (result) {
            uint32_t *to = (uint32_t *)PyBytes_AsString(result);
            Py_BEGIN_ALLOW_THREADS
            if (chains)
                unite(buffer.buf, n, (size_t)bands, to);
            else
                greedy(buffer.buf, n, (size_t)bands, to);
            Py_END_ALLOW_THREADS
        }
    }
    PyBuffer_Release(&buffer);
    return result;
}

static PyMethodDef module_methods[] = {
    {"keys", keys, METH_VARARGS, "Write the keys of texts into a buffer, band by band."},
    {"similarity", similarity, METH_VARARGS, "Compare the shingles of texts, pair by pair."},
    {"buckets", buckets, METH_VARARGS, "Replace the keys of a band by the first text of each."},
    {"lost_to", lost_to, METH_VARARGS, "Tell for each text to which it loses, or 2^32 - 1."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_minhash", "MinHash in C.", -1, module_methods,
    NULL,                  NULL,       NULL,            NULL};

PyMODINIT_FUNC PyInit__minhash(void) {
    letters_fill();
    return PyModule_Create(&module_def);
}
