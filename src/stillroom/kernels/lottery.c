/* Keyed hashes of short texts: the first 8 bytes of BLAKE2b, many at a time.
 *
 * Each text gets the number that hashlib.blake2b(text, digest_size=8, key=key) gives, read highest
 * byte first. The state after the key's block is the same for all texts and is made once.
 *
 * Source: RFC 7693.
 */

#include "columns.h"

static const uint64_t START[8] = {
    0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
    0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u};

static const uint8_t ORDER[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

static inline uint64_t turn(uint64_t x, int n) { return x >> n | x << (64 - n); }

static inline uint64_t little(const uint8_t *at) {
    uint64_t number;
    memcpy(&number, at, sizeof number);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    number = __builtin_bswap64(number);
#endif
    return number;
}

#define G(a, b, c, d, x, y)                       \
    do {                                          \
        v[a] += v[b] + (x);                       \
        v[d] = turn(v[d] ^ v[a], 32);             \
        v[c] += v[d];                             \
        v[b] = turn(v[b] ^ v[c], 24);             \
        v[a] += v[b] + (y);                       \
        v[d] = turn(v[d] ^ v[a], 16);             \
        v[c] += v[d];                             \
        v[b] = turn(v[b] ^ v[c], 63);             \
    } while (0)

/* Take in one block of 128 bytes; `read` counts the bytes so far, this block among them. */
static void compress(uint64_t h[8], const uint8_t *block, uint64_t read, int last) {
    uint64_t v[16], m[16];
    for (int i = 0; i < 16; i++) m[i] = little(block + 8 * i);
    for (int i = 0; i < 8; i++) {
        v[i] = h[i];
        v[i + 8] = START[i];
    }
    v[12] ^= read;
    if (last) v[14] = ~v[14];
    for (int r = 0; r < 12; r++) {
        const uint8_t *s = ORDER[r];
        G(0, 4, 8, 12, m[s[0]], m[s[1]]);
        G(1, 5, 9, 13, m[s[2]], m[s[3]]);
        G(2, 6, 10, 14, m[s[4]], m[s[5]]);
        G(3, 7, 11, 15, m[s[6]], m[s[7]]);
        G(0, 5, 10, 15, m[s[8]], m[s[9]]);
        G(1, 6, 11, 12, m[s[10]], m[s[11]]);
        G(2, 7, 8, 13, m[s[12]], m[s[13]]);
        G(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

/* Four texts of one block each, side by side. */
typedef uint64_t Four __attribute__((vector_size(32)));

#define TURN(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define G4(a, b, c, d, x, y)              \
    do {                                  \
        v[a] += v[b] + (x);               \
        v[d] = TURN(v[d] ^ v[a], 32);     \
        v[c] += v[d];                     \
        v[b] = TURN(v[b] ^ v[c], 24);     \
        v[a] += v[b] + (y);               \
        v[d] = TURN(v[d] ^ v[a], 16);     \
        v[c] += v[d];                     \
        v[b] = TURN(v[b] ^ v[c], 63);     \
    } while (0)

static inline __attribute__((always_inline)) void four(const uint64_t keyed[8], const Value *texts,
                                                       uint64_t *numbers) {
    uint8_t blocks[4][128] = {{0}};
    Four v[16], m[16], length, all = {~0ull, ~0ull, ~0ull, ~0ull};
    for (int k = 0; k < 4; k++) {
        memcpy(blocks[k], texts[k].at, texts[k].length);
        length[k] = 128 + texts[k].length;
    }
    for (int i = 0; i < 16; i++)
        m[i] = (Four){little(blocks[0] + 8 * i), little(blocks[1] + 8 * i),
                      little(blocks[2] + 8 * i), little(blocks[3] + 8 * i)};
    for (int i = 0; i < 8; i++) {
        v[i] = (Four){keyed[i], keyed[i], keyed[i], keyed[i]};
        v[i + 8] = (Four){START[i], START[i], START[i], START[i]};
    }
    v[12] ^= length;
    v[14] ^= all;
#pragma GCC unroll 12
    for (int r = 0; r < 12; r++) {
        const uint8_t *s = ORDER[r];
        G4(0, 4, 8, 12, m[s[0]], m[s[1]]);
        G4(1, 5, 9, 13, m[s[2]], m[s[3]]);
        G4(2, 6, 10, 14, m[s[4]], m[s[5]]);
        G4(3, 7, 11, 15, m[s[6]], m[s[7]]);
        G4(0, 5, 10, 15, m[s[8]], m[s[9]]);
        G4(1, 6, 11, 12, m[s[10]], m[s[11]]);
        G4(2, 7, 8, 13, m[s[12]], m[s[13]]);
        G4(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int k = 0; k < 4; k++) numbers[k] = __builtin_bswap64(keyed[0] ^ v[0][k] ^ v[8][k]);
}

typedef void (*Hash4)(const uint64_t *, const Value *, uint64_t *);

static void four_generic(const uint64_t *keyed, const Value *texts, uint64_t *numbers) {
    four(keyed, texts, numbers);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void four_avx2(const uint64_t *keyed, const Value *texts,
                                                      uint64_t *numbers) {
    four(keyed, texts, numbers);
}
#endif

static int four_fit(const Value *texts) {
    for (int k = 0; k < 4; k++)
        if (!texts[k].length || texts[k].length > 128) return 0;
    return 1;
}

static void hash_all(const Column *texts, const uint8_t *key, size_t key_length, uint64_t *numbers) {
    uint64_t keyed[8], empty[8];
    uint8_t block[128] = {0};
    memcpy(keyed, START, sizeof keyed);
    keyed[0] ^= 0x01010000u ^ (uint64_t)key_length << 8 ^ 8;
    memcpy(empty, keyed, sizeof empty);
    memcpy(block, key, key_length);
    compress(keyed, block, 128, 0);
    compress(empty, block, 128, 1);
    Hash4 hash4 = four_generic;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) hash4 = four_avx2;
#endif
    for (size_t i = 0; i < texts->n; i++) {
        if (i + 4 <= texts->n && four_fit(texts->values + i)) {
            hash4(keyed, texts->values + i, numbers + i);
            i += 3;
            continue;
        }
        const uint8_t *at = texts->values[i].at;
        size_t left = texts->values[i].length;
        uint64_t h[8], read = 128;
        memcpy(h, left ? keyed : empty, sizeof h);
        while (left) {
            size_t n = left < 128 ? left : 128;
            memcpy(block, at, n);
            memset(block + n, 0, 128 - n);
            at += n;
            left -= n;
            read += n;
            compress(h, block, read, !left);
        }
        numbers[i] = __builtin_bswap64(h[0]);
    }
}

/* draw(texts, key) -> 64-bit numbers */
static PyObject *draw(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *result = NULL;
    Py_buffer key;
    int type;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &key)) return NULL;
    Column texts = {0}, none = {0};
    if (!read_texts(capsule, Py_None, &texts, &none, &type)) goto end;
    if (type != STRINGS || key.len < 1 || key.len > 64) {
        PyErr_SetString(PyExc_ValueError, "expected strings, and a key of 1 to 64 bytes");
        goto end;
    }
    for (size_t i = 0; i < texts.n; i++) {
        if (texts.values[i].at) continue;
        PyErr_Format(PyExc_ValueError, "text %zu is null; expected none", i);
        goto end;
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * texts.n));
    if (!result) goto end;
    uint64_t *numbers = (uint64_t *)PyBytes_AsString(result);
    Py_BEGIN_ALLOW_THREADS
    hash_all(&texts, key.buf, (size_t)key.len, numbers);
    Py_END_ALLOW_THREADS
end:
    column_free(&texts);
    PyBuffer_Release(&key);
    return result;
}

static PyMethodDef module_methods[] = {
    {"draw", draw, METH_VARARGS, "Hash texts with a key: 64-bit numbers, as bytes."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_lottery", "Keyed hashes in C.", -1, module_methods,
    NULL,                  NULL,       NULL,                 NULL};

PyMODINIT_FUNC PyInit__lottery(void) { return PyModule_Create(&module_def); }
