/* Exact joins by Indel similarity.
 *
 * Two texts a and b are alike if 2 LCS(a, b) / (|a| + |b|) reaches a threshold, 50% to 100%. Every
 * pair goes through lossless gates, each cheaper than the next:
 *
 *   length   the shorter text holds the LCS, so lengths bound each other; texts are sorted by length
 *   coarse   letters counted in 16 bins: their L1 distance is at most |a| + |b| - 2 LCS
 *   fine     the same in 64 bins
 *   lanes    an upper bound on the LCS of 32 pairs side by side, where the machine can
 *   band     a bit-parallel LCS (Hyyro 2004) of the cells that a good enough alignment can visit,
 *            given up as soon as the cell on the final diagonal shows too many edits
 *
 * Counters saturate and rare characters share bins and symbols: both only lower a distance, so no
 * pair is lost. Texts are bytes of symbols: the 255 most frequent characters of the column, and one
 * symbol for all others; a pair in which both texts have that one is compared again character by
 * character. indel_reference.py says in plain Python what is found; docs/indel.md, what each gate
 * gives.
 *
 * Threads share tiles of texts; what is found for a text does not depend on them. The interpreter
 * lock is released, and the calling thread wakes to tell progress and to hear Ctrl-C.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "columns.h"

#define INLINE static inline __attribute__((always_inline))
#define COARSE 16
#define FINE 64
#define SYMBOLS 256
#define OTHER 255      /* the symbol of rare characters */
#define CODES 0x110000 /* Unicode code points */
#define SCALE 1000000  /* of thresholds */
#define BLOCK 256      /* texts that share one limit of the coarse gate */
#define TILE 32        /* texts that a thread takes at a time */
#define WAITING 8192   /* texts that passed the gates and wait for the LCS */
#define LIKELY 64      /* of them that go first where one find is enough */
#define ALIKE 256      /* shares of letters that are told apart */
#define LEAF 64        /* texts that are compared one by one */
#define RUN 32         /* columns between two looks at the band */
#define LANES 32       /* texts that go side by side */
#define RARE 62        /* the class of all symbols that are not among the 62 most frequent */
#define NOTHING 63     /* the class of a column behind the end of a text */
#define ROWS 16        /* rows of a pattern in one lane */
#define CHUNKS 4       /* of so many rows that go through the columns together */
#define FEW 3          /* texts that are better looked at one by one */
#define MOST 30000     /* characters that 16 bits can count */
#define SMALL 4000000  /* pairs that are not worth a thread */

/* ---- texts ----------------------------------------------------------------------------------- */

typedef struct {
    Column column;
    size_t n;
    uint64_t *start; /* of the symbols of each text; n + 1 */
    uint8_t *symbols, *fine, *coarse;
} Texts;

typedef struct {
    uint8_t *symbol; /* by code point */
    uint8_t fine[SYMBOLS], coarse[SYMBOLS];
} Alphabet;

static uint32_t length_of(const Texts *t, uint32_t i) {
    return (uint32_t)(t->start[i + 1] - t->start[i]);
}

static const uint8_t *symbols_of(const Texts *t, uint32_t i) { return t->symbols + t->start[i]; }

/* Read a code point; the columns hold valid UTF-8. */
INLINE uint32_t code_point(const uint8_t **at) {
    const uint8_t *p = *at;
    if (p[0] < 0x80) return *at += 1, p[0];
    if (p[0] < 0xe0) return *at += 2, (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    if (p[0] < 0xf0)
        return *at += 3, (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    return *at += 4, ((p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 |
                      (p[3] & 0x3fu)) % CODES;
}

/* Count the code points of all texts, and how many there are in all. */
static uint64_t count_codes(const Column *column, uint64_t *counts) {
    uint64_t total = 0;
    for (size_t i = 0; i < column->n; i++) {
        const uint8_t *at = column->values[i].at, *end = at + column->values[i].length;
        for (; at < end; total++) counts[code_point(&at)]++;
    }
    return total;
}

typedef struct {
    uint64_t count;
    uint32_t code;
} Frequency;

static int by_count(const void *x, const void *y) {
    const Frequency *a = x, *b = y;
    if (a->count != b->count) return a->count < b->count ? 1 : -1;
    return a->code < b->code ? -1 : 1;
}

/* Give each symbol, the most frequent first, to the bin that has least. */
static void fill_bins(const uint64_t *counts, int n, uint8_t *bins, int n_bins) {
    uint64_t load[FINE] = {0};
    for (int s = 0; s < n; s++) {
        int least = 0;
        for (int b = 1; b < n_bins; b++)
            if (load[b] < load[least]) least = b;
        bins[s] = (uint8_t)least;
        load[least] += counts[s] + 1;
    }
}

static int alphabet_make(Alphabet *alphabet, const uint64_t *counts) {
    size_t n = 0;
    for (uint32_t code = 0; code < CODES; code++) n += counts[code] > 0;
    Frequency *found = malloc((n + 1) * sizeof *found);
    alphabet->symbol = malloc(CODES);
    if (!found || !alphabet->symbol) return free(found), 0;
    memset(alphabet->symbol, OTHER, CODES);
    n = 0;
    for (uint32_t code = 0; code < CODES; code++)
        if (counts[code]) found[n++] = (Frequency){counts[code], code};
    qsort(found, n, sizeof *found, by_count);
    uint64_t mass[SYMBOLS] = {0};
    for (size_t i = 0; i < n; i++) {
        int symbol = i < OTHER ? (int)i : OTHER;
        alphabet->symbol[found[i].code] = (uint8_t)symbol;
        mass[symbol] += found[i].count;
    }
    fill_bins(mass, SYMBOLS, alphabet->fine, FINE);
    fill_bins(mass, SYMBOLS, alphabet->coarse, COARSE);
    free(found);
    return 1;
}

static int texts_encode(Texts *t, uint64_t total, const Alphabet *alphabet) {
    t->n = t->column.n;
    t->start = malloc((t->n + 1) * sizeof *t->start);
    t->symbols = malloc(total + 64);
    t->fine = aligned_alloc(64, (t->n + 1) * FINE);
    t->coarse = malloc((t->n + 1) * COARSE);
    if (!t->start || !t->symbols || !t->fine || !t->coarse) return 0;
    memset(t->fine, 0, (t->n + 1) * FINE);
    memset(t->coarse, 0, (t->n + 1) * COARSE);
    uint8_t *to = t->symbols;
    for (size_t i = 0; i < t->n; i++) {
        const uint8_t *at = t->column.values[i].at, *end = at + t->column.values[i].length;
        uint8_t *fine = t->fine + i * FINE, *coarse = t->coarse + i * COARSE;
        t->start[i] = (uint64_t)(to - t->symbols);
        while (at < end) {
            uint8_t symbol = alphabet->symbol[code_point(&at)];
            uint8_t *f = fine + alphabet->fine[symbol], *c = coarse + alphabet->coarse[symbol];
            *f = (uint8_t)(*f + (*f < 255));
            *c = (uint8_t)(*c + (*c < 255));
            *to++ = symbol;
        }
    }
    t->start[t->n] = (uint64_t)(to - t->symbols);
    return 1;
}

static void texts_free(Texts *t) {
    column_free(&t->column);
    free(t->start);
    free(t->symbols);
    free(t->fine);
    free(t->coarse);
    memset(t, 0, sizeof *t);
}

/* ---- bounds; `t` is the threshold in millionths ---------------------------------------------- */

/* The least LCS of two texts, `total` characters together, that reaches the threshold. */
INLINE uint32_t least_common(uint64_t total, uint64_t t) {
    return (uint32_t)((t * total + 2 * SCALE - 1) / (2 * SCALE));
}

/* A bound on their distance that does not fall as `total` grows. */
INLINE uint64_t most_edits(uint64_t total, uint64_t t) { return (SCALE - t) * total / SCALE; }

INLINE uint64_t shortest(uint64_t length, uint64_t t) {
    return (t * length + 2 * SCALE - t - 1) / (2 * SCALE - t);
}

INLINE uint64_t longest(uint64_t length, uint64_t t) { return (2 * SCALE - t) * length / t; }

/* ---- the band -------------------------------------------------------------------------------- */

/* One text, written for comparison with many: for each symbol, the places where it stands. */
typedef struct {
    uint64_t *places; /* SYMBOLS rows of `words` words */
    uint64_t *state;  /* bit i is 0 if the LCS grows from row i to row i + 1 */
    const uint8_t *symbols;
    uint32_t length;
    size_t words, room;
} Pattern;

static void pattern_clear(Pattern *p) {
    for (uint32_t i = 0; i < p->length; i++)
        p->places[p->symbols[i] * p->words + i / 64] = 0;
    p->length = 0;
}

/* Write a pattern; rows of symbols that it lacks are zero, and cost memory only when read. */
static int pattern_set(Pattern *p, const uint8_t *symbols, uint32_t length) {
    size_t words = ((size_t)length + 63) / 64;
    pattern_clear(p);
    if (words > p->room) {
        free(p->places);
        free(p->state);
        p->room = words + words / 2 + 8;
        p->places = calloc(SYMBOLS * p->room, sizeof *p->places);
        p->state = malloc(p->room * sizeof *p->state);
        if (!p->places || !p->state) return p->room = 0, 0;
    }
    p->symbols = symbols;
    p->length = length;
    p->words = words;
    for (uint32_t i = 0; i < length; i++)
        p->places[symbols[i] * words + i / 64] |= (uint64_t)1 << (i % 64);
    return 1;
}

static void pattern_free(Pattern *p) {
    free(p->places);
    free(p->state);
    memset(p, 0, sizeof *p);
}

/* Take `n` columns through `words` words of state. */
INLINE void columns(uint64_t *state, const uint64_t *places, size_t stride, const uint8_t *text,
                    size_t n, size_t words) {
    for (size_t j = 0; j < n; j++) {
        const uint64_t *row = places + text[j] * stride;
        unsigned long long carry = 0;
        for (size_t w = 0; w < words; w++) {
            uint64_t s = state[w], hit = s & row[w];
            unsigned long long sum, next;
            next = __builtin_add_overflow((unsigned long long)s, (unsigned long long)hit, &sum);
            next |= __builtin_add_overflow(sum, carry, &sum);
            carry = next;
            state[w] = sum | (s - hit);
        }
    }
}

/* The same with the state in registers, where it is small enough. */
INLINE void columns_fast(uint64_t *to, const uint64_t *places, size_t stride, const uint8_t *text,
                         size_t n, size_t words) {
    uint64_t state[8];
    for (size_t w = 0; w < words; w++) state[w] = to[w];
    columns(state, places, stride, text, n, words);
    for (size_t w = 0; w < words; w++) to[w] = state[w];
}

INLINE uint32_t ones(uint64_t x) { return (uint32_t)__builtin_popcountll(x); }

/* The place of the k-th one bit, from 0. */
INLINE uint32_t place_of_one(uint64_t x, uint32_t k) {
    while (k--) x &= x - 1;
    return (uint32_t)__builtin_ctzll(x);
}

/* Return the LCS of a pattern and a text if it is at least `need`, else -1.
 *
 * Rows are places of the pattern, columns of the text. A cell (i, j) is alive if at most
 * m - need rows and n - need columns were skipped on the way to it: i - L and j - L, both known from
 * the state, where L is the LCS of the first i and the first j characters. Alive rows move up by
 * at most one per column. Rows below the band keep their last state, and rows above it are as if
 * nothing matched: both lower L in dead cells only.
 */
INLINE int64_t band(Pattern *p, const uint8_t *text, uint32_t n, uint32_t need) {
    uint32_t m = p->length;
    if (need > m || need > n) return -1;
    if (!m || !n) return 0;
    uint64_t *state = p->state;
    size_t words = p->words, low = 0, top = 0; /* words above `top` were not touched */
    uint32_t below = 0;                        /* zeros in the words below `low` */
    uint32_t skips = m - need, text_skips = n - need;
    int64_t reach = skips; /* the highest row that is alive, less the column */
    memset(state, 0xff, words * sizeof *state);
    for (uint32_t j = 0; j < n;) {
        uint32_t run = n - j < RUN ? n - j : RUN;
        size_t high = (size_t)(j + run + reach) / 64;
        if (high >= words) high = words - 1;
        if (high > top) top = high;
        size_t width = high - low + 1;
        uint64_t *part = state + low;
        const uint64_t *places = p->places + low;
        switch (width) {
        case 1: columns_fast(part, places, words, text + j, run, 1); break;
        case 2: columns_fast(part, places, words, text + j, run, 2); break;
        case 3: columns_fast(part, places, words, text + j, run, 3); break;
        case 4: columns_fast(part, places, words, text + j, run, 4); break;
        case 5: columns_fast(part, places, words, text + j, run, 5); break;
        case 6: columns_fast(part, places, words, text + j, run, 6); break;
        case 7: columns_fast(part, places, words, text + j, run, 7); break;
        case 8: columns_fast(part, places, words, text + j, run, 8); break;
        default: columns(part, places, words, text + j, run, width);
        }
        j += run;
        if (j == n) break;
        /* The final diagonal: from here on every character may match. */
        int64_t row = (int64_t)j + m - n;
        uint32_t zeros = below;
        if (row > 0) {
            size_t w = low;
            uint32_t common = below;
            for (; w < (size_t)row / 64; w++) common += 64 - ones(state[w]);
            if (row % 64) common += ones(~state[w] & (((uint64_t)1 << row % 64) - 1));
            if (common + (n - j) < need) return -1;
        }
        while (low < high) { /* too many columns were skipped below */
            uint32_t more = 64 - ones(state[low]);
            if ((int64_t)zeros + more >= (int64_t)j - text_skips) break;
            zeros += more;
            low++;
        }
        below = zeros;
        uint32_t skipped = (uint32_t)(64 * low) - zeros;
        size_t w = low;
        for (; w <= top; w++) { /* too many rows were skipped above */
            uint32_t more = ones(state[w]);
            if (skipped + more > skips) break;
            skipped += more;
        }
        if (skipped > skips) return -1;
        if (w <= top) {
            reach = (int64_t)(64 * w + place_of_one(state[w], skips - skipped)) - j;
            for (size_t x = w + 1; x <= top; x++) state[x] = ~(uint64_t)0;
            top = w;
        }
    }
    uint32_t common = below;
    for (size_t w = low; w <= top; w++) common += 64 - ones(state[w]);
    return common >= need ? (int64_t)common : -1;
}

static int by_code(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

/* ---- the gate of lanes ------------------------------------------------------------------------ */

/* One text, written for a look at many others: its symbols, the rare ones as one class. */
typedef struct {
    uint16_t *places; /* for each 16 rows, the places of the 64 classes */
    uint16_t *state;  /* for each 16 rows, LANES words */
    size_t room;
} Wide;

/* Room for the text of `length` characters; 0 without memory. */
static int wide_set(Wide *wide, const uint8_t *symbols, uint32_t length) {
    size_t chunks = ((size_t)length + ROWS - 1) / ROWS;
    chunks += -chunks % 4;
    if (chunks > wide->room) {
        free(wide->places);
        free(wide->state);
        wide->room = chunks + chunks / 2;
        wide->places = aligned_alloc(64, wide->room * 64 * sizeof *wide->places);
        wide->state = aligned_alloc(64, wide->room * LANES * sizeof *wide->state);
        if (!wide->places || !wide->state) return wide->room = 0, 0;
    }
    memset(wide->places, 0, chunks * 64 * sizeof *wide->places);
    for (uint32_t i = 0; i < length; i++)
        wide->places[i / ROWS * 64 + (symbols[i] < RARE ? symbols[i] : RARE)] |=
            (uint16_t)(1 << i % ROWS);
    return 1;
}

static void wide_free(Wide *wide) {
    free(wide->places);
    free(wide->state);
}

/* ---- the gates of letters -------------------------------------------------------------------- */

#if defined(__x86_64__)
#define BITALG __attribute__((target("avx512bw,avx512vl,avx512bitalg,popcnt,bmi,bmi2")))

/* Take the columns of one run through CHUNKS * ROWS rows. */
BITALG static void wide_columns(const uint16_t *places, uint16_t *state, const uint16_t *texts,
                                uint32_t *carries, uint32_t run) {
    __m512i s[CHUNKS], low[CHUNKS], high[CHUNKS];
    const __m512i all = _mm512_set1_epi16(-1), zero = _mm512_setzero_si512();
    for (int c = 0; c < CHUNKS; c++) {
        s[c] = _mm512_load_si512(state + c * LANES);
        low[c] = _mm512_load_si512(places + c * 64);
        high[c] = _mm512_load_si512(places + c * 64 + 32);
    }
    for (uint32_t j = 0; j < run; j++) {
        __m512i text = _mm512_load_si512(texts + j * LANES);
        __mmask32 carry = carries[j];
#pragma GCC unroll 4
        for (int c = 0; c < CHUNKS; c++) {
            __m512i row = _mm512_permutex2var_epi16(low[c], text, high[c]);
            __m512i sum = _mm512_add_epi16(s[c], _mm512_and_si512(s[c], row));
            __mmask32 over = _mm512_cmplt_epu16_mask(sum, s[c]);
            sum = _mm512_mask_sub_epi16(sum, carry, sum, all);
            carry = over | _mm512_mask_cmpeq_epi16_mask(carry, sum, zero);
            s[c] = _mm512_ternarylogic_epi64(sum, s[c], row, 0xf4); /* sum | (s & ~row) */
        }
        carries[j] = carry;
    }
    for (int c = 0; c < CHUNKS; c++) _mm512_store_si512(state + c * LANES, s[c]);
}

/* Write 8 columns of 8 texts, from column k on, column by column: a turned square of bytes. Texts
 * may be read beyond their end, but not by more than RUN bytes. */
BITALG static inline void turn(const uint8_t *const *texts, uint32_t k, uint16_t *to) {
    __m128i a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = _mm_loadl_epi64((const __m128i *)(texts[i] + k));
    for (int i = 0; i < 4; i++) b[i] = _mm_unpacklo_epi8(a[2 * i], a[2 * i + 1]);
    a[0] = _mm_unpacklo_epi16(b[0], b[1]);
    a[1] = _mm_unpackhi_epi16(b[0], b[1]);
    a[2] = _mm_unpacklo_epi16(b[2], b[3]);
    a[3] = _mm_unpackhi_epi16(b[2], b[3]);
    b[0] = _mm_unpacklo_epi32(a[0], a[2]);
    b[1] = _mm_unpackhi_epi32(a[0], a[2]);
    b[2] = _mm_unpacklo_epi32(a[1], a[3]);
    b[3] = _mm_unpackhi_epi32(a[1], a[3]);
    for (int i = 0; i < 4; i++) {
        __m256i two = _mm256_cvtepu8_epi16(_mm_min_epu8(b[i], _mm_set1_epi8(RARE)));
        _mm_store_si128((__m128i *)(to + 2 * i * LANES), _mm256_castsi256_si128(two));
        _mm_store_si128((__m128i *)(to + (2 * i + 1) * LANES), _mm256_extracti128_si256(two, 1));
    }
}

/* Tell which of n texts may share `needs` characters with a pattern of m, as a mask.
 *
 * The band as below, for texts of about one length side by side. Rare symbols are one class, so what
 * is counted is at least the LCS: no text is lost, and those that are left are compared again.
 */
BITALG static uint32_t lanes_bitalg(Wide *wide, uint32_t m, const uint8_t *const *texts, const uint32_t *lengths,
                                    const uint32_t *needs, int n) {
    uint16_t part[RUN * LANES] __attribute__((aligned(64)));
    const uint8_t *at[LANES];
    uint16_t ends[LANES] __attribute__((aligned(64))), least[LANES] __attribute__((aligned(64)));
    uint32_t carries[RUN], longest = 0, skips = 0, text_skips = 0;
    uint32_t alive = n == 32 ? UINT32_MAX : (1u << n) - 1;
    size_t chunks = ((size_t)m + ROWS - 1) / ROWS;
    chunks += -chunks % CHUNKS;
    memset(ends, 0, sizeof ends);
    memset(least, 0, sizeof least);
    for (int l = 0; l < n; l++) {
        if (needs[l] > m || needs[l] > lengths[l]) {
            alive &= ~(1u << l);
            continue;
        }
        ends[l] = (uint16_t)lengths[l];
        least[l] = (uint16_t)needs[l];
        if (lengths[l] > longest) longest = lengths[l];
        if (m - needs[l] > skips) skips = m - needs[l];
        if (lengths[l] - needs[l] > text_skips) text_skips = lengths[l] - needs[l];
    }
    memset(wide->state, 0xff, chunks * LANES * sizeof *wide->state);
    const __m512i one = _mm512_set1_epi16(1);
    const __m512i end = _mm512_load_si512(ends), need = _mm512_load_si512(least);
    for (uint32_t j = 0; j < longest;) {
        uint32_t run = longest - j < RUN ? longest - j : RUN;
        for (int l = 0; l < LANES; l++) at[l] = texts[l < n ? l : 0] + (j < ends[l] ? j : 0);
        for (int l = 0; l < LANES; l += 8)
            for (uint32_t k = 0; k < RUN; k += 8) turn(at + l, k, part + k * LANES + l);
        for (int l = 0; l < LANES; l++)
            for (uint32_t k = j < ends[l] ? ends[l] - j : 0; k < run; k++)
                part[k * LANES + l] = NOTHING;
        size_t first = (j > text_skips ? j - text_skips : 0) / ROWS / CHUNKS * CHUNKS;
        size_t last = (j + run + skips) / ROWS;
        memset(carries, 0, sizeof carries);
        for (size_t c = first; c < chunks && c <= last; c += CHUNKS)
            wide_columns(wide->places + c * 64, wide->state + c * LANES, part, carries, run);
        j += run;
        /* How much is common on the final diagonal of each text, and how much may follow. */
        __m512i left = _mm512_subs_epu16(end, _mm512_set1_epi16((int16_t)j));
        __m512i rows = _mm512_subs_epu16(_mm512_set1_epi16((int16_t)m), left);
        __m512i common = left;
        for (size_t c = 0; c < chunks && c <= last; c++) {
            __m512i here = _mm512_subs_epu16(rows, _mm512_set1_epi16((int16_t)(c * ROWS)));
            /* A shift by 16 or more gives 0, so that all bits count. */
            __m512i mask = _mm512_sub_epi16(_mm512_sllv_epi16(one, here), one);
            __m512i zeros = _mm512_andnot_si512(_mm512_load_si512(wide->state + c * LANES), mask);
            common = _mm512_add_epi16(common, _mm512_popcnt_epi16(zeros));
        }
        alive &= _mm512_cmpge_epu16_mask(common, need);
        if (__builtin_popcount(alive) <= FEW) break;
    }
    return alive;
}
#endif

/* The gates, by one kind of instructions. Every kind gives the same answers in the same order. */
typedef struct {
    const char *name;
    /* List which of n rows of 16 counters are at most `limit` from q; `rows` has 8 spare rows. */
    size_t (*coarse)(const uint8_t *q, const uint8_t *rows, size_t n, uint32_t limit,
                     uint32_t *out);
    /* Keep those of n listed texts whose 64 counters allow the threshold. */
    size_t (*fine)(const uint8_t *q, uint32_t length, const uint8_t *rows,
                   const uint32_t *lengths, uint64_t t, uint32_t *list, size_t n);
    /* The L1 distance of 64 counters. */
    uint32_t (*apart)(const uint8_t *a, const uint8_t *b);
    int64_t (*band)(Pattern *p, const uint8_t *text, uint32_t n, uint32_t need);
    /* Tell which texts may share enough with a pattern; NULL without such instructions. */
    uint32_t (*lanes)(Wide *wide, uint32_t m, const uint8_t *const *texts,
                      const uint32_t *lengths, const uint32_t *needs, int n);
} Gates;

INLINE uint32_t distance(const uint8_t *a, const uint8_t *b, int n) {
    uint32_t sum = 0;
    for (int k = 0; k < n; k++) sum += (uint32_t)abs((int)a[k] - (int)b[k]);
    return sum;
}

INLINE uint32_t distance_plain(const uint8_t *a, const uint8_t *b) { return distance(a, b, FINE); }

#define KIND(NAME, TARGET)                                                                       \
    TARGET static size_t fine_##NAME(const uint8_t *q, uint32_t length, const uint8_t *rows,     \
                                     const uint32_t *lengths, uint64_t t, uint32_t *list,        \
                                     size_t n) {                                                 \
        size_t kept = 0;                                                                         \
        for (size_t i = 0; i < n; i++) {                                                         \
            uint32_t total = length + lengths[list[i]], need = least_common(total, t);           \
            int64_t edits = (int64_t)total - 2 * (int64_t)need;                                  \
            list[kept] = list[i];                                                                \
            kept += distance_##NAME(q, rows + (size_t)list[i] * FINE) <= edits;                  \
        }                                                                                        \
        return kept;                                                                             \
    }                                                                                            \
    TARGET static uint32_t apart_##NAME(const uint8_t *a, const uint8_t *b) {                    \
        return distance_##NAME(a, b);                                                            \
    }                                                                                            \
    TARGET static int64_t band_##NAME(Pattern *p, const uint8_t *text, uint32_t n,               \
                                      uint32_t need) {                                           \
        return band(p, text, n, need);                                                           \
    }

KIND(plain, )

static size_t coarse_plain(const uint8_t *q, const uint8_t *rows, size_t n, uint32_t limit,
                           uint32_t *out) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        out[found] = (uint32_t)i;
        found += distance(q, rows + i * COARSE, COARSE) <= limit;
    }
    return found;
}

static const Gates gates_plain = {"plain", coarse_plain, fine_plain, apart_plain, band_plain, NULL};

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))
#define AVX512 __attribute__((target("avx512bw,avx512vl,popcnt,bmi,bmi2")))

AVX2 INLINE uint32_t distance_avx2(const uint8_t *a, const uint8_t *b) {
    const __m256i *x = (const __m256i *)a, *y = (const __m256i *)b;
    __m256i sum = _mm256_add_epi64(
        _mm256_sad_epu8(_mm256_loadu_si256(x), _mm256_loadu_si256(y)),
        _mm256_sad_epu8(_mm256_loadu_si256(x + 1), _mm256_loadu_si256(y + 1)));
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return (uint32_t)(_mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1));
}

AVX2 static size_t coarse_avx2(const uint8_t *q, const uint8_t *rows, size_t n, uint32_t limit,
                               uint32_t *out) {
    size_t found = 0;
    __m256i query = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)q));
    __m256i above = _mm256_set1_epi64x((int64_t)limit + 1);
    for (size_t i = 0; i < n; i += 4) {
        const __m256i *at = (const __m256i *)(rows + i * COARSE);
        __m256i x = _mm256_sad_epu8(query, _mm256_loadu_si256(at));
        __m256i y = _mm256_sad_epu8(query, _mm256_loadu_si256(at + 1));
        __m256i sum = _mm256_add_epi64(_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
        int mask = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(above, sum)));
        if (!mask) continue;
        for (size_t k = 0; k < 4; k++) { /* lanes hold the rows 0, 2, 1, 3 */
            out[found] = (uint32_t)(i + k);
            found += (mask >> (k % 2 * 2 + k / 2) & 1) && i + k < n;
        }
    }
    return found;
}

AVX512 INLINE uint32_t distance_avx512(const uint8_t *a, const uint8_t *b) {
    return (uint32_t)_mm512_reduce_add_epi64(
        _mm512_sad_epu8(_mm512_loadu_si512(a), _mm512_loadu_si512(b)));
}

AVX512 static size_t coarse_avx512(const uint8_t *q, const uint8_t *rows, size_t n,
                                   uint32_t limit, uint32_t *out) {
    size_t found = 0;
    __m512i query = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)q));
    __m512i most = _mm512_set1_epi64((int64_t)limit);
    for (size_t i = 0; i < n; i += 8) {
        __m512i x = _mm512_sad_epu8(query, _mm512_loadu_si512(rows + i * COARSE));
        __m512i y = _mm512_sad_epu8(query, _mm512_loadu_si512(rows + i * COARSE + 64));
        __m512i sum = _mm512_add_epi64(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
        unsigned mask = _mm512_cmple_epu64_mask(sum, most);
        if (!mask) continue;
        for (size_t k = 0; k < 8; k++) { /* lanes hold the rows 0, 4, 1, 5, 2, 6, 3, 7 */
            out[found] = (uint32_t)(i + k);
            found += (mask >> (k % 4 * 2 + k / 4) & 1) && i + k < n;
        }
    }
    return found;
}

KIND(avx2, AVX2)
KIND(avx512, AVX512)

static const Gates gates_avx2 = {"avx2", coarse_avx2, fine_avx2, apart_avx2, band_avx2, NULL};
static const Gates gates_avx512 = {"avx512", coarse_avx512, fine_avx512, apart_avx512, band_avx512, NULL};
static const Gates gates_bitalg = {"bitalg", coarse_avx512, fine_avx512, apart_avx512, band_avx512,
                                   lanes_bitalg};
#endif

static const Gates *gates_for(const char *name) {
    int best = !name;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if ((best || !strcmp(name, "bitalg")) && __builtin_cpu_supports("avx512bitalg") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &gates_bitalg;
    if ((best || !strcmp(name, "avx512")) && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return &gates_avx512;
    if ((best || !strcmp(name, "avx2")) && __builtin_cpu_supports("avx2")) return &gates_avx2;
#endif
    return best || !strcmp(name, "plain") ? &gates_plain : NULL;
}

/* Return the LCS of two strings character by character, or -1 without memory. */
static int64_t plain_common(Value a, Value b) {
    uint32_t *codes = malloc((b.length + 1) * 2 * sizeof *codes), *distinct = codes + b.length + 1;
    if (!codes) return -1;
    size_t n = 0, kinds = 0;
    const uint8_t *at = b.at, *end = at + b.length;
    while (at < end) codes[n++] = code_point(&at);
    memcpy(distinct, codes, n * sizeof *codes);
    qsort(distinct, n, sizeof *distinct, by_code);
    for (size_t i = 0; i < n; i++)
        if (!i || distinct[i] != distinct[i - 1]) distinct[kinds++] = distinct[i];
    size_t words = (n + 63) / 64;
    uint64_t *places = calloc((kinds + 1) * words + 1, sizeof *places), *state = NULL;
    if (places) state = places + kinds * words;
    for (size_t i = 0; places && i < n; i++) {
        uint32_t *kind = bsearch(&codes[i], distinct, kinds, sizeof *distinct, by_code);
        places[(size_t)(kind - distinct) * words + i / 64] |= (uint64_t)1 << (i % 64);
    }
    int64_t common = places ? 0 : -1;
    if (places) {
        memset(state, 0xff, words * sizeof *state);
        for (at = a.at, end = at + a.length; at < end;) {
            uint32_t code = code_point(&at);
            uint32_t *kind = bsearch(&code, distinct, kinds, sizeof *distinct, by_code);
            const uint8_t here = 0;
            if (kind)
                columns(state, places + (size_t)(kind - distinct) * words, 0, &here, 1, words);
        }
        for (size_t w = 0; w < words; w++) common += 64 - ones(state[w]);
    }
    free(places);
    free(codes);
    return common;
}

/* ---- a scan: some texts against others ------------------------------------------------------- */

typedef struct {
    uint32_t row, witness, common, total;
} Hit;

typedef struct {
    Hit *at;
    size_t n, room;
} Hits;

static int hits_add(Hits *hits, Hit hit) {
    if (hits->n == hits->room) {
        size_t room = hits->room ? 2 * hits->room : 256;
        Hit *at = realloc(hits->at, room * sizeof *at);
        if (!at) return 0;
        hits->at = at;
        hits->room = room;
    }
    hits->at[hits->n++] = hit;
    return 1;
}

enum { FIRST, BEST, LATER }; /* any partner; the best ones; every partner that stands later */

typedef struct {
    const Gates *gates;
    const Texts *texts, *others;
    uint64_t t;
    int mode;
    size_t limit;
    /* Places of texts and of others, both sorted by length. */
    const uint32_t *rows, *partners;
    size_t n_rows, n_partners, from; /* from: place of the first row among all texts, for LATER */
    uint8_t *coarse, *fine; /* counters and lengths of the partners, side by side */
    uint32_t *lengths;
    atomic_size_t next, done;
    atomic_int stop, failed;
    pthread_mutex_t lock;
    pthread_cond_t news;
    int working;
    Hits hits;
} Scan;

typedef struct {
    Pattern pattern;
    Wide wide;
    uint32_t *waiting; /* TILE lists of WAITING places among the partners */
    uint32_t *near;
    uint32_t *rest; /* room for one list, and for how far apart its texts are */
    uint8_t *apart;
    Hit *best;
    Hits hits;
} Lane;

static int lane_make(Lane *lane, size_t limit) {
    memset(lane, 0, sizeof *lane);
    lane->waiting = malloc(TILE * (WAITING + BLOCK) * sizeof *lane->waiting);
    lane->near = malloc((BLOCK + 8) * sizeof *lane->near);
    lane->rest = malloc((WAITING + BLOCK) * sizeof *lane->rest);
    lane->apart = malloc(WAITING + BLOCK);
    lane->best = malloc(TILE * (limit + 1) * sizeof *lane->best);
    return lane->waiting && lane->near && lane->rest && lane->apart && lane->best;
}

static void lane_free(Lane *lane) {
    pattern_free(&lane->pattern);
    wide_free(&lane->wide);
    free(lane->waiting);
    free(lane->near);
    free(lane->rest);
    free(lane->apart);
    free(lane->best);
    free(lane->hits.at);
}

/* Whether x is a better partner than y: a higher share, or the same and an earlier place. */
static int better(const Hit *x, const Hit *y) {
    uint64_t a = x->total ? x->common : 1, m = x->total ? x->total : 2;
    uint64_t b = y->total ? y->common : 1, n = y->total ? y->total : 2;
    return a * n != b * m ? a * n > b * m : x->witness < y->witness;
}

typedef struct {
    uint32_t row, length;
    size_t n_best;
    uint32_t n_waiting;
    int found;
} Seeker;

/* Tell which of the next partners may reach the threshold, as a mask. */
static uint32_t look(Scan *scan, Lane *lane, const Seeker *seeker, const uint32_t *waiting,
                     uint32_t n) {
    const uint8_t *at[LANES];
    uint32_t lengths[LANES], needs[LANES];
    if (n > LANES) n = LANES;
    for (uint32_t l = 0; l < n; l++) {
        at[l] = symbols_of(scan->others, scan->partners[waiting[l]]);
        lengths[l] = scan->lengths[waiting[l]];
        needs[l] = least_common((uint64_t)seeker->length + lengths[l], scan->t);
        if (lengths[l] >= MOST) return UINT32_MAX;
    }
    return scan->gates->lanes(&lane->wide, seeker->length, at, lengths, needs, (int)n);
}

/* Put the partners whose letters are most alike first, LIKELY of them or some fewer, but one share
 * of letters at least. Both parts stay sorted by length, as lanes want them. */
static void likely_first(const Scan *scan, Lane *lane, const Seeker *seeker, uint32_t *waiting) {
    const uint8_t *letters = scan->texts->fine + (size_t)seeker->row * FINE;
    uint32_t n = seeker->n_waiting, counts[ALIKE] = {0};
    for (uint32_t k = 0; k < n; k++) {
        uint64_t edits = scan->gates->apart(letters, scan->fine + (size_t)waiting[k] * FINE);
        uint64_t total = (uint64_t)seeker->length + scan->lengths[waiting[k]];
        lane->apart[k] = (uint8_t)(edits * (ALIKE - 1) / (total + !total));
        counts[lane->apart[k]]++;
    }
    uint32_t end = 0, first = 0, last = 0;
    for (uint32_t sum = 0; end < ALIKE && (!sum || sum + counts[end] <= LIKELY); end++)
        sum += counts[end];
    for (uint32_t k = 0; k < n; k++) {
        if (lane->apart[k] < end)
            waiting[first++] = waiting[k];
        else
            lane->rest[last++] = waiting[k];
    }
    memcpy(waiting + first, lane->rest, last * sizeof *waiting);
}

/* Compare one text with the partners that wait for it. */
static int seek(Scan *scan, Lane *lane, Seeker *seeker, uint32_t *waiting, Hit *best) {
    const Texts *texts = scan->texts, *others = scan->others;
    if (scan->mode == FIRST && seeker->n_waiting > LIKELY)
        likely_first(scan, lane, seeker, waiting);
    int by_lanes = scan->gates->lanes && seeker->n_waiting >= LANES / 4 && seeker->length &&
                   2 * (uint64_t)seeker->length < MOST;
    if (by_lanes && !wide_set(&lane->wide, symbols_of(texts, seeker->row), seeker->length))
        return 0;
    uint32_t may = 0;
    int set = 0;
    for (uint32_t k = 0; k < seeker->n_waiting && !seeker->found; k++) {
        if (by_lanes && k % LANES == 0)
            may = look(scan, lane, seeker, waiting + k, seeker->n_waiting - k);
        if (by_lanes && !(may >> k % LANES & 1)) continue;
        uint32_t place = scan->partners[waiting[k]], length = scan->lengths[waiting[k]];
        uint32_t total = seeker->length + length, need = least_common(total, scan->t);
        if (scan->mode == BEST && seeker->n_best == scan->limit) {
            const Hit *last = &best[seeker->n_best - 1];
            uint64_t n = last->total ? last->total : 1;
            uint32_t more = (uint32_t)(((uint64_t)last->common * total + n - 1) / n);
            if (more > need) need = more;
        }
        if (!set && !pattern_set(&lane->pattern, symbols_of(texts, seeker->row), seeker->length))
            return 0;
        set = 1;
        int64_t common = scan->gates->band(&lane->pattern, symbols_of(others, place), length, need);
        if (common < 0) continue;
        if (memchr(symbols_of(others, place), OTHER, length) &&
            memchr(symbols_of(texts, seeker->row), OTHER, seeker->length)) {
            common = plain_common(texts->column.values[seeker->row],
                                  others->column.values[place]);
            if (common < 0) return 0;
            if (common < (int64_t)need) continue;
        }
        Hit hit = {seeker->row, place, (uint32_t)common, total};
        if (scan->mode == LATER && hit.witness > hit.row) {
            hit.row = place;
            hit.witness = seeker->row;
        }
        if (scan->mode != BEST) {
            seeker->found = scan->mode == FIRST;
            if (!hits_add(&lane->hits, hit)) return 0;
            continue;
        }
        size_t at = seeker->n_best;
        if (at == scan->limit && !better(&hit, &best[--at])) continue;
        for (; at && better(&hit, &best[at - 1]); at--) best[at] = best[at - 1];
        best[at] = hit;
        if (seeker->n_best < scan->limit) seeker->n_best++;
    }
    seeker->n_waiting = 0;
    return 1;
}

/* Where in n sorted lengths the first one of at least `length` stands. */
static size_t first_of(const uint32_t *lengths, size_t n, uint64_t length) {
    size_t low = 0;
    while (n) {
        size_t half = n / 2;
        if (lengths[low + half] < length) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

/* Take the texts of one tile through all their partners. */
static int scan_tile(Scan *scan, Lane *lane, size_t tile) {
    Seeker seekers[TILE];
    size_t froms[TILE], tos[TILE], from = SIZE_MAX, to = 0;
    size_t start = tile * TILE, n = scan->n_rows - start < TILE ? scan->n_rows - start : TILE;
    for (size_t k = 0; k < n; k++) {
        uint32_t row = scan->rows[start + k], length = length_of(scan->texts, row);
        seekers[k] = (Seeker){row, length, 0, 0, 0};
        froms[k] = first_of(scan->lengths, scan->n_partners, shortest(length, scan->t));
        tos[k] = first_of(scan->lengths, scan->n_partners, longest(length, scan->t) + 1);
        size_t after = scan->from + start + k + 1;
        if (scan->mode == LATER && froms[k] < after) froms[k] = after;
        if (froms[k] < from) from = froms[k];
        if (tos[k] > to) to = tos[k];
    }
    for (size_t at = from; at < to; at += BLOCK) {
        size_t end = at + BLOCK < to ? at + BLOCK : to;
        uint32_t longest_here = scan->lengths[end - 1];
        for (size_t k = 0; k < n; k++) {
            Seeker *seeker = &seekers[k];
            size_t a = froms[k] > at ? froms[k] : at, b = tos[k] < end ? tos[k] : end;
            if (seeker->found || a >= b) continue;
            uint64_t limit = most_edits((uint64_t)seeker->length + longest_here, scan->t);
            if (limit > COARSE * 255) limit = COARSE * 255;
            uint32_t *waiting = lane->waiting + k * (WAITING + BLOCK);
            size_t near = scan->gates->coarse(
                scan->texts->coarse + (size_t)seeker->row * COARSE, scan->coarse + a * COARSE,
                b - a, (uint32_t)limit, lane->near);
            near = scan->gates->fine(scan->texts->fine + (size_t)seeker->row * FINE,
                                     seeker->length, scan->fine + a * FINE, scan->lengths + a,
                                     scan->t, lane->near, near);
            for (size_t i = 0; i < near; i++)
                waiting[seeker->n_waiting++] = (uint32_t)a + lane->near[i];
            if (seeker->n_waiting >= WAITING &&
                !seek(scan, lane, seeker, waiting, lane->best + k * scan->limit))
                return 0;
        }
        if (atomic_load_explicit(&scan->stop, memory_order_relaxed)) return 1;
    }
    for (size_t k = 0; k < n; k++) {
        Hit *best = lane->best + k * scan->limit;
        if (!seek(scan, lane, &seekers[k], lane->waiting + k * (WAITING + BLOCK), best)) return 0;
        for (size_t i = 0; i < seekers[k].n_best; i++)
            if (!hits_add(&lane->hits, best[i])) return 0;
    }
    return 1;
}

static void *scan_work(void *data) {
    Scan *scan = data;
    Lane lane;
    size_t tiles = (scan->n_rows + TILE - 1) / TILE, tile;
    int ok = lane_make(&lane, scan->limit);
    while (ok && !atomic_load(&scan->stop) && (tile = atomic_fetch_add(&scan->next, 1)) < tiles) {
        ok = scan_tile(scan, &lane, tile);
        size_t left = scan->n_rows - tile * TILE;
        atomic_fetch_add(&scan->done, left < TILE ? left : TILE);
    }
    pthread_mutex_lock(&scan->lock);
    for (size_t i = 0; ok && i < lane.hits.n; i++) ok = hits_add(&scan->hits, lane.hits.at[i]);
    if (!ok) {
        atomic_store(&scan->failed, 1);
        atomic_store(&scan->stop, 1);
    }
    scan->working--;
    pthread_cond_signal(&scan->news);
    pthread_mutex_unlock(&scan->lock);
    lane_free(&lane);
    return NULL;
}

static int by_row(const void *x, const void *y) {
    const Hit *a = x, *b = y;
    if (a->row != b->row) return a->row < b->row ? -1 : 1;
    return better(a, b) ? -1 : 1;
}

static int by_key(const void *x, const void *y) {
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return (a > b) - (a < b);
}

/* Sort n places by length, and by place where lengths are equal; 0 without memory. */
static int sort_by_length(const Texts *t, uint32_t *places, size_t n) {
    uint64_t *keys = malloc((n + 1) * sizeof *keys);
    if (!keys) return 0;
    for (size_t i = 0; i < n; i++) keys[i] = (uint64_t)length_of(t, places[i]) << 32 | places[i];
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t i = 0; i < n; i++) places[i] = (uint32_t)keys[i];
    free(keys);
    return 1;
}

/* What the calling thread hears: Ctrl-C, and progress to tell. */
typedef struct {
    PyObject *tick;
    double done, of, texts; /* work, in pairs, that is done and in all; texts in all */
    Py_ssize_t told;        /* texts */
    int workers;
} Caller;

/* With the interpreter lock held: tell how many texts the work is worth; 0 with an exception. */
static int tell(Caller *caller, double done) {
    if (PyErr_CheckSignals()) return 0;
    Py_ssize_t texts = (Py_ssize_t)(caller->of > 0 ? done / caller->of * caller->texts : 0);
    if (texts <= caller->told) return 1;
    PyObject *answer = PyObject_CallFunction(caller->tick, "n", texts - caller->told);
    caller->told = texts;
    Py_XDECREF(answer);
    return answer != NULL;
}

enum { OK = 0, NO_MEMORY = 1, RAISED = 2 };

/* Run a scan; `worth` is the progress that it makes. The interpreter lock is not held. */
static int scan_run(Scan *scan, Caller *caller, double worth, PyThreadState **thread) {
    int result = OK;
    scan->coarse = malloc((scan->n_partners + 16) * COARSE);
    scan->lengths = malloc((scan->n_partners + 1) * sizeof *scan->lengths);
    scan->fine = aligned_alloc(64, (scan->n_partners + 1) * FINE);
    if (!scan->coarse || !scan->lengths || !scan->fine) {
        free(scan->coarse);
        free(scan->lengths);
        free(scan->fine);
        return NO_MEMORY;
    }
    for (size_t i = 0; i < scan->n_partners; i++) {
        uint32_t place = scan->partners[i];
        scan->lengths[i] = length_of(scan->others, place);
        memcpy(scan->coarse + i * COARSE, scan->others->coarse + (size_t)place * COARSE, COARSE);
        memcpy(scan->fine + i * FINE, scan->others->fine + (size_t)place * FINE, FINE);
    }
    memset(scan->coarse + scan->n_partners * COARSE, 0, 16 * COARSE);
    atomic_init(&scan->next, 0);
    atomic_init(&scan->done, 0);
    atomic_init(&scan->stop, 0);
    atomic_init(&scan->failed, 0);
    pthread_mutex_init(&scan->lock, NULL);
    pthread_cond_init(&scan->news, NULL);
    int small = (double)scan->n_rows * (double)scan->n_partners < SMALL;
    if (small) {
        scan->working = 1;
        scan_work(scan);
    } else {
        pthread_t threads[256];
        int started = 0;
        scan->working = 0;
        pthread_mutex_lock(&scan->lock);
        for (; started < caller->workers && started < 256; started++) {
            if (pthread_create(&threads[started], NULL, scan_work, scan)) break;
            scan->working++;
        }
        if (!started) result = NO_MEMORY;
        while (scan->working) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 100000000;
            if (until.tv_nsec >= 1000000000) {
                until.tv_nsec -= 1000000000;
                until.tv_sec++;
            }
            pthread_cond_timedwait(&scan->news, &scan->lock, &until);
            if (!scan->working || result) continue;
            pthread_mutex_unlock(&scan->lock);
            PyEval_RestoreThread(*thread);
            double share = (double)atomic_load(&scan->done) / (double)scan->n_rows;
            if (!tell(caller, caller->done + worth * share)) {
                result = RAISED;
                atomic_store(&scan->stop, 1);
            }
            *thread = PyEval_SaveThread();
            pthread_mutex_lock(&scan->lock);
        }
        pthread_mutex_unlock(&scan->lock);
        for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    }
    if (atomic_load(&scan->failed)) result = NO_MEMORY;
    caller->done += worth;
    pthread_mutex_destroy(&scan->lock);
    pthread_cond_destroy(&scan->news);
    free(scan->coarse);
    free(scan->lengths);
    free(scan->fine);
    return result;
}

/* ---- dedup ----------------------------------------------------------------------------------- */

typedef struct {
    Texts *texts;
    const Gates *gates;
    uint64_t t;
    int greedy;
    Hit *fate;      /* of each different text; total is UINT32_MAX while it is kept */
    uint32_t *list; /* places of the different texts, in order */
    Lane lane;
    Caller *caller;
    PyThreadState **thread;
} Dedup;

#define KEPT UINT32_MAX

static void gather(const Dedup *d, uint32_t *places, size_t *n, size_t from, size_t to, int all) {
    *n = 0;
    for (size_t i = from; i < to; i++)
        if (all || d->fate[d->list[i]].total == KEPT) places[(*n)++] = d->list[i];
}

/* Compare few texts with each other, one by one. */
static int dedup_leaf(Dedup *d, size_t from, size_t to) {
    const Texts *t = d->texts;
    uint32_t partners[LEAF], lengths[LEAF], waiting[LEAF];
    uint8_t fine[LEAF * FINE] __attribute__((aligned(64)));
    Scan scan = {.gates = d->gates, .texts = t, .others = t, .t = d->t, .mode = FIRST,
                 .partners = partners, .fine = fine, .lengths = lengths};
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        uint32_t place = d->list[i];
        Hit *fate = &d->fate[place];
        if (fate->total == KEPT) {
            Seeker seeker = {place, length_of(t, place), 0, 0, 0};
            uint64_t least = shortest(seeker.length, d->t), most = longest(seeker.length, d->t);
            size_t near = 0;
            for (uint32_t k = 0; k < n; k++)
                if (lengths[k] >= least && lengths[k] <= most) waiting[near++] = k;
            seeker.n_waiting = (uint32_t)d->gates->fine(t->fine + (size_t)place * FINE,
                                                        seeker.length, fine, lengths, d->t,
                                                        waiting, near);
            if (!seek(&scan, &d->lane, &seeker, waiting, NULL)) return NO_MEMORY;
            if (seeker.found) *fate = d->lane.hits.at[--d->lane.hits.n];
        }
        if (!d->greedy || fate->total == KEPT) {
            lengths[n] = length_of(t, place);
            memcpy(fine + n * FINE, t->fine + (size_t)place * FINE, FINE);
            partners[n++] = place;
        }
    }
    d->caller->done += (double)(to - from) * (double)(to - from) / 2;
    return OK;
}

/* Decide the fate of texts in order: the first half, then what is left of the second half against
 * what the first half kept, then the rest of the second half. Every pair of texts meets once at
 * most, in a scan as large as can be, and the result is that of taking text after text. */
static int dedup_range(Dedup *d, size_t from, size_t to) {
    if (to - from <= LEAF) return dedup_leaf(d, from, to);
    size_t middle = from + (to - from) / 2;
    int result = dedup_range(d, from, middle);
    if (result) return result;
    if (to - from > 64 * LEAF) {
        PyEval_RestoreThread(*d->thread);
        if (!tell(d->caller, d->caller->done)) result = RAISED;
        *d->thread = PyEval_SaveThread();
        if (result) return result;
    }
    uint32_t *places = malloc((to - from + 1) * sizeof *places);
    if (!places) return NO_MEMORY;
    Scan scan = {.gates = d->gates, .texts = d->texts, .others = d->texts, .t = d->t,
                 .mode = FIRST, .rows = places + (middle - from), .partners = places};
    gather(d, places, &scan.n_partners, from, middle, !d->greedy);
    gather(d, places + (middle - from), &scan.n_rows, middle, to, 0);
    if (!sort_by_length(d->texts, places, scan.n_partners) ||
        !sort_by_length(d->texts, places + (middle - from), scan.n_rows))
        result = NO_MEMORY;
    double worth = (double)(middle - from) * (double)(to - middle);
    if (!result) result = scan_run(&scan, d->caller, worth, d->thread);
    for (size_t i = 0; i < scan.hits.n; i++) d->fate[scan.hits.at[i].row] = scan.hits.at[i];
    free(scan.hits.at);
    free(places);
    return result ? result : dedup_range(d, middle, to);
}

static uint64_t hash_of(Value v) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ v.length, x;
    const uint8_t *p = v.at;
    size_t n = v.length;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&x, p, 8);
        h = (h ^ x) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; n; n--, p++) h = (h ^ *p) * 0x100000001b3u;
    return h ^ h >> 29;
}

/* Find equal texts: `first` gets the first place of each; 0 without memory. */
static int find_equal(const Texts *t, uint32_t *first) {
    size_t slots = 64;
    while (slots < 2 * t->n) slots *= 2;
    uint32_t *table = malloc(slots * sizeof *table);
    if (!table) return 0;
    memset(table, 0xff, slots * sizeof *table);
    for (size_t i = 0; i < t->n; i++) {
        Value v = t->column.values[i];
        size_t slot = hash_of(v) & (slots - 1);
        for (; table[slot] != UINT32_MAX; slot = (slot + 1) & (slots - 1)) {
            Value w = t->column.values[table[slot]];
            if (w.length == v.length && !memcmp(w.at, v.at, v.length)) break;
        }
        if (table[slot] == UINT32_MAX) table[slot] = (uint32_t)i;
        first[i] = table[slot];
    }
    free(table);
    return 1;
}

static int dedup_run(Dedup *d) {
    size_t n = d->texts->n, different = 0;
    uint32_t *first = malloc((n + 1) * sizeof *first);
    d->list = malloc((n + 1) * sizeof *d->list);
    d->fate = malloc((n + 1) * sizeof *d->fate);
    int ok = first && d->list && d->fate && find_equal(d->texts, first) && lane_make(&d->lane, 0);
    for (uint32_t i = 0; ok && i < n; i++) {
        d->fate[i] = (Hit){i, i, 0, KEPT};
        if (first[i] == i) d->list[different++] = i;
    }
    d->caller->of = (double)different * (double)different / 2;
    d->caller->texts = (double)n;
    int result = ok ? dedup_range(d, 0, different) : NO_MEMORY;
    for (uint32_t i = 0; !result && i < n; i++) {
        if (first[i] == i) continue;
        d->fate[i] = d->fate[first[i]];
        if (!d->greedy || d->fate[i].total == KEPT) {
            uint32_t length = length_of(d->texts, i);
            d->fate[i] = (Hit){i, first[i], length, 2 * length};
        }
        d->fate[i].row = i;
    }
    free(first);
    return result;
}

/* ---- the module ------------------------------------------------------------------------------ */

/* Read columns, and encode them in one alphabet; 0 with an exception. */
static int read_columns(Texts *texts, PyObject **capsules, int n, const Py_buffer *order) {
    uint64_t *counts = calloc(CODES, sizeof *counts), totals[2];
    Alphabet alphabet = {0};
    int ok = counts != NULL, type;
    for (int i = 0; ok && i < n; i++) {
        ok = read_capsule(capsules[i], &texts[i].column, &type);
        if (ok && type != STRINGS)
            PyErr_SetString(PyExc_TypeError, "the column holds lists; expected strings");
        else if (ok && texts[i].column.n > UINT32_MAX / 4)
            PyErr_SetString(PyExc_ValueError, "more than a billion texts");
        ok = ok && !PyErr_Occurred();
    }
    if (ok && order->buf) { /* the column as it stands in another order */
        Column *column = &texts[0].column;
        const uint32_t *places = order->buf;
        Value *values = malloc((column->n + 1) * sizeof *values);
        size_t count = (size_t)order->len / sizeof *places;
        if (!values) ok = 0;
        for (size_t i = 0; ok && i < column->n; i++) {
            if (count != column->n || places[i] >= column->n) {
                PyErr_SetString(PyExc_ValueError, "the order does not name each text");
                ok = 0;
            } else {
                values[i] = column->values[places[i]];
            }
        }
        if (ok) {
            free(column->values);
            column->values = values;
        } else {
            free(values);
        }
    }
    if (ok) {
        Py_BEGIN_ALLOW_THREADS
        for (int i = 0; i < n; i++) totals[i] = count_codes(&texts[i].column, counts);
        ok = alphabet_make(&alphabet, counts);
        for (int i = 0; ok && i < n; i++) ok = texts_encode(&texts[i], totals[i], &alphabet);
        Py_END_ALLOW_THREADS
    }
    free(alphabet.symbol);
    free(counts);
    if (ok) return 1;
    if (!PyErr_Occurred()) PyErr_NoMemory();
    for (int i = 0; i < n; i++) texts_free(&texts[i]);
    return 0;
}

/* Return finds as three columns of bytes: rows, witnesses (uint32) and scores (double). */
static PyObject *hits_return(const Hit *hits, size_t n) {
    PyObject *rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(4 * n));
    PyObject *witnesses = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(4 * n));
    PyObject *scores = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * n));
    if (rows && witnesses && scores) {
        char *a = PyBytes_AsString(rows), *b = PyBytes_AsString(witnesses);
        char *c = PyBytes_AsString(scores);
        for (size_t i = 0; i < n; i++) {
            double total = (double)hits[i].total, edits = total - 2.0 * (double)hits[i].common;
            double score = hits[i].total ? (1.0 - edits / total) * 100.0 : 100.0;
            memcpy(a + 4 * i, &hits[i].row, 4);
            memcpy(b + 4 * i, &hits[i].witness, 4);
            memcpy(c + 8 * i, &score, 8);
        }
        return Py_BuildValue("NNN", rows, witnesses, scores);
    }
    Py_XDECREF(rows);
    Py_XDECREF(witnesses);
    Py_XDECREF(scores);
    return NULL;
}

static PyObject *finish(int result, const Hit *hits, size_t n) {
    if (result == NO_MEMORY) return PyErr_NoMemory();
    return result ? NULL : hits_return(hits, n);
}

static const Gates *gates_named(const char *name) {
    const Gates *gates = gates_for(name);
    if (!gates) PyErr_Format(PyExc_ValueError, "this machine has no kernels named %s", name);
    return gates;
}

/* Every place of a column, sorted by length. */
static uint32_t *all_sorted(const Texts *t) {
    uint32_t *places = malloc((t->n + 1) * sizeof *places);
    if (!places) return NULL;
    for (size_t i = 0; i < t->n; i++) places[i] = (uint32_t)i;
    if (sort_by_length(t, places, t->n)) return places;
    free(places);
    return NULL;
}

static PyObject *module_join(PyObject *self, PyObject *args) {
    PyObject *capsules[2], *tick;
    unsigned long t, limit;
    int workers;
    const char *kernels;
    if (!PyArg_ParseTuple(args, "OOkkiOz", &capsules[0], &capsules[1], &t, &limit, &workers, &tick,
                          &kernels))
        return NULL;
    const Gates *gates = gates_named(kernels);
    Texts texts[2] = {{{0}}};
    if (!gates || !read_columns(texts, capsules, 2, &(Py_buffer){0})) return NULL;
    if (limit > texts[1].n) limit = texts[1].n;
    Caller caller = {.tick = tick, .of = 1, .texts = (double)texts[0].n, .workers = workers};
    int result = NO_MEMORY;
    PyThreadState *thread = PyEval_SaveThread();
    uint32_t *rows = all_sorted(&texts[0]), *partners = all_sorted(&texts[1]);
    Scan scan = {.gates = gates, .texts = &texts[0], .others = &texts[1], .t = t, .mode = BEST,
                 .limit = limit, .rows = rows, .partners = partners, .n_rows = texts[0].n,
                 .n_partners = texts[1].n};
    if (rows && partners) result = limit ? scan_run(&scan, &caller, 1, &thread) : OK;
    if (scan.hits.n) qsort(scan.hits.at, scan.hits.n, sizeof *scan.hits.at, by_row);
    PyEval_RestoreThread(thread);
    if (!result && !tell(&caller, 1)) result = RAISED;
    PyObject *found = finish(result, scan.hits.at, scan.hits.n);
    free(scan.hits.at);
    free(rows);
    free(partners);
    texts_free(&texts[0]);
    texts_free(&texts[1]);
    return found;
}

static PyObject *module_dedup(PyObject *self, PyObject *args) {
    PyObject *capsule, *tick;
    Py_buffer order = {0};
    unsigned long t;
    int workers, greedy;
    const char *kernels;
    if (!PyArg_ParseTuple(args, "Oz*kpiOz", &capsule, &order, &t, &greedy, &workers, &tick,
                          &kernels))
        return NULL;
    const Gates *gates = gates_named(kernels);
    Texts texts = {{0}};
    PyObject *found = NULL;
    if (gates && read_columns(&texts, &capsule, 1, &order)) {
        Caller caller = {.tick = tick, .workers = workers};
        PyThreadState *thread = PyEval_SaveThread();
        Dedup d = {.texts = &texts, .gates = gates, .t = t, .greedy = greedy, .caller = &caller,
                   .thread = &thread};
        int result = dedup_run(&d);
        size_t n = 0;
        for (size_t i = 0; !result && i < texts.n; i++)
            if (d.fate[i].total != KEPT) d.fate[n++] = d.fate[i];
        PyEval_RestoreThread(thread);
        if (!result && !tell(&caller, caller.of)) result = RAISED;
        found = finish(result, d.fate, n);
        lane_free(&d.lane);
        free(d.fate);
        free(d.list);
        texts_free(&texts);
    }
    PyBuffer_Release(&order);
    return found;
}

typedef struct {
    Texts texts;
    uint32_t *places; /* sorted by length */
} Sorted;

static void sorted_free(PyObject *capsule) {
    Sorted *sorted = PyCapsule_GetPointer(capsule, "stillroom.indel");
    texts_free(&sorted->texts);
    free(sorted->places);
    free(sorted);
}

static PyObject *module_sorted(PyObject *self, PyObject *capsule) {
    Sorted *sorted = calloc(1, sizeof *sorted);
    if (!sorted) return PyErr_NoMemory();
    if (read_columns(&sorted->texts, &capsule, 1, &(Py_buffer){0})) {
        sorted->places = all_sorted(&sorted->texts);
        PyObject *made =
            sorted->places ? PyCapsule_New(sorted, "stillroom.indel", sorted_free) : PyErr_NoMemory();
        if (made) return made;
    }
    texts_free(&sorted->texts);
    free(sorted->places);
    free(sorted);
    return NULL;
}

static PyObject *module_pairs(PyObject *self, PyObject *args) {
    PyObject *capsule, *tick;
    unsigned long t, from, to;
    int workers;
    const char *kernels;
    if (!PyArg_ParseTuple(args, "OkkkiOz", &capsule, &from, &to, &t, &workers, &tick, &kernels))
        return NULL;
    Sorted *sorted = PyCapsule_GetPointer(capsule, "stillroom.indel");
    const Gates *gates = gates_named(kernels);
    if (!sorted || !gates) return NULL;
    if (to > sorted->texts.n) to = sorted->texts.n;
    if (from > to) from = to;
    Caller caller = {.tick = tick, .of = 1, .texts = (double)(to - from), .workers = workers};
    PyThreadState *thread = PyEval_SaveThread();
    Scan scan = {.gates = gates, .texts = &sorted->texts, .others = &sorted->texts, .t = t,
                 .mode = LATER, .rows = sorted->places + from, .partners = sorted->places,
                 .n_rows = to - from, .n_partners = sorted->texts.n, .from = from};
    int result = scan_run(&scan, &caller, 1, &thread);
    if (scan.hits.n) qsort(scan.hits.at, scan.hits.n, sizeof *scan.hits.at, by_row);
    PyEval_RestoreThread(thread);
    if (!result && !tell(&caller, 1)) result = RAISED;
    PyObject *found = finish(result, scan.hits.at, scan.hits.n);
    free(scan.hits.at);
    return found;
}

static PyObject *module_common(PyObject *self, PyObject *args) {
    const char *a, *b;
    Py_ssize_t n_a, n_b;
    if (!PyArg_ParseTuple(args, "s#s#", &a, &n_a, &b, &n_b)) return NULL;
    Value x = {(const uint8_t *)a, (uint64_t)n_a}, y = {(const uint8_t *)b, (uint64_t)n_b};
    int64_t common;
    Py_BEGIN_ALLOW_THREADS
    common = plain_common(x, y);
    Py_END_ALLOW_THREADS
    return common < 0 ? PyErr_NoMemory() : PyLong_FromLongLong(common);
}

static PyObject *module_supported(PyObject *self, PyObject *args) {
    static const char *const names[] = {"bitalg", "avx512", "avx2", "plain"};
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < 4; i++) {
        if (!gates_for(names[i])) continue;
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(list, name)) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyMethodDef module_methods[] = {
    {"join", module_join, METH_VARARGS, "Find the best items of each text."},
    {"dedup", module_dedup, METH_VARARGS, "Find the texts that repeat an earlier one."},
    {"sorted", module_sorted, METH_O, "Hold texts, sorted by length."},
    {"pairs", module_pairs, METH_VARARGS, "Find the later partners of some sorted texts."},
    {"common", module_common, METH_VARARGS, "Count the characters that two strings share in order."},
    {"supported", module_supported, METH_NOARGS, "Name the kernels that this machine has."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_indel", "Indel joins in C.", -1, module_methods, NULL, NULL, NULL,
    NULL};

PyMODINIT_FUNC PyInit__indel(void) { return PyModule_Create(&module_def); }
