/* A batched decoder for small language models on the CPU.
 *
 * Covered: decoder-only transformers of the Qwen2, Llama and Qwen3 families in float32; many
 * completions at once, each slot refilled as soon as it is free; keys and values of a shared
 * beginning are copied, not computed again. A completion is a function of the weights and of its
 * own job alone: see kernels.h for how.
 *
 * Not covered: sliding windows, mixtures of experts, quantised weights, beam search, GPUs.
 *
 * Two Python types: Model (weights, written once, then read only) and Engine (threads that work
 * through jobs without the interpreter lock). Sizes come from files, so every one is bounded here,
 * and each tensor's length is compared with its shape.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if !defined(__GNUC__)
#error "stillroom needs GCC or Clang: the kernels use their vector extensions"
#endif
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* wide vectors are passed between inlined functions only */
#endif

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 32     /* columns that lie together in a packed matrix */
#define PAGE 16      /* positions in a page of keys and values: the lanes of a sum, see kernels.h */
#define CHUNK 64     /* prompt positions computed together */
#define MAX_HEAD 512 /* floats in an attention head */
#define TURNS 8192   /* positions whose rotations are kept in a table */
#define MAX_ENDS 16  /* token ids that end a completion */

/* ---- weights ------------------------------------------------------------------------------ */

typedef struct {
    float *w;    /* columns / BLOCK panels of k rows of BLOCK floats */
    float *bias; /* or NULL */
    int k, columns;
} Matrix;

typedef struct {
    Matrix qkv, out, gate_up, down;
    float *input_norm, *post_norm, *q_norm, *k_norm;
} Layer;

struct Kernels;

typedef struct {
    int vocab, dim, layers, heads, kv_heads, head_dim, ff, context;
    int qkv_bias, qk_norm, tied;
    float eps, scale;
    int dim_padded, head_padded, qkv_padded, ff_padded, vocab_padded, scores_padded;
    size_t page_layer, page_floats; /* floats of a page: of one layer, of all */
    Matrix embed, head;
    float *norm;
    Layer *layer;
    double *frequencies; /* radians per position, head_dim / 2 of them */
    float *cosines, *sines;
    int turns;
    const struct Kernels *kernels;
} Model;

/* ---- work --------------------------------------------------------------------------------- */

typedef struct Job {
    struct Job *next;
    uint64_t id;
    uint32_t key[4];
    double top_p;
    float temperature;
    int32_t *tokens; /* the prompt, then what was drawn */
    int prompt, length, room, limit, stream;
    int told;   /* tokens that the caller has, from the prompt on */
    int failed; /* memory ran out */
    int finish;
    atomic_int cancelled;
} Job;

/* Keys and values of sixteen positions, in all layers. Draws of one question share the pages that
 * their prompt fills; a page is written only by its sole owner. */
typedef struct {
    int owners;
    float numbers[] __attribute__((aligned(64)));
} Page;

typedef struct {
    Job *job;        /* NULL when free */
    int32_t *tokens; /* whose keys and values the pages hold, first `computed` of them */
    int computed, room, reserved;
    uint64_t group; /* slots of one group have the same prompt */
    Page **pages;
    int n_pages, pages_room;
} Slot;

typedef struct {
    int token, pos;
    Page **pages;
} Row;

typedef struct Part { /* tokens of a streamed job that goes on */
    struct Part *next;
    uint64_t id;
    int n;
    int32_t tokens[];
} Part;

enum { MORE = 0, STOP = 1, LENGTH = 2, NO_MEMORY = 3 };

typedef struct {
    const Model *model;
    float *x, *h, *qkv, *attended, *gated, *logits, *scores, *weights;
    int32_t *order;
    int rows;
} Worker;

typedef struct Kernels {
    void (*forward)(Worker *, const Row *, int, int);
    void (*weigh)(const float *, int, float, float, float *);
} Kernels;

static int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

static void *zeros(size_t count, size_t size) {
    void *p = NULL;
    if (size && count > SIZE_MAX / 2 / size) return NULL;
    if (posix_memalign(&p, 64, count * size + 64)) return NULL;
    memset(p, 0, count * size + 64);
    return p;
}

/* Sine and cosine of x, 0 <= x < 2**21: fdlibm's kernels, since libm differs between machines. */
static void sine_cosine(double x, double *sine, double *cosine) {
    const double magic = 6755399441055744.0; /* 1.5 * 2**52 */
    double n = (x * 0.63661977236758134308 + magic) - magic;
    double r = x - n * 1.57079632673412561417e+00;
    r = r - n * 6.07710050650619224932e-11;
    double z = r * r;
    double s = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10;
    s = 2.75573137070700676789e-06 + z * s;
    s = -1.98412698298579493134e-04 + z * s;
    s = 8.33333333332248946124e-03 + z * s;
    s = -1.66666666666666324348e-01 + z * s;
    s = r + r * z * s;
    double c = 2.08757232129817482790e-09 + z * -1.13596475577881948265e-11;
    c = -2.75573143513906633035e-07 + z * c;
    c = 2.48015872894767294178e-05 + z * c;
    c = -1.38888888888741095749e-03 + z * c;
    c = 4.16666666666666019037e-02 + z * c;
    c = 1.0 - (0.5 * z - z * z * c);
    switch ((int64_t)n & 3) {
        case 0: *sine = s, *cosine = c; break;
        case 1: *sine = c, *cosine = -s; break;
        case 2: *sine = -s, *cosine = -c; break;
        default: *sine = -c, *cosine = s;
    }
}

/* Rotations of one position. The angle is rounded to float32, as in the reference models. */
static void angles(const double *frequencies, int half, int pos, float *cosines, float *sines) {
    for (int i = 0; i < half; i++) {
        double sine, cosine;
        sine_cosine((double)((float)pos * (float)frequencies[i]), &sine, &cosine);
        cosines[i] = (float)cosine;
        sines[i] = (float)sine;
    }
}

#define LANES 4
#define TILE 4
#define TARGET
#define NAME(x) x##_generic
#include "kernels.h"

#if defined(__x86_64__)
#define LANES 8
#define TILE 4
#define TARGET __attribute__((target("avx2")))
#define NAME(x) x##_avx2
#include "kernels.h"

#define LANES 16
#define TILE 8
#define TARGET __attribute__((target("avx512f")))
#define NAME(x) x##_avx512
#include "kernels.h"
#endif

static const Kernels *kernels_named(const char *name) {
#if defined(__x86_64__)
    const int best = name == NULL;
    __builtin_cpu_init();
    if ((best || !strcmp(name, "avx512")) && __builtin_cpu_supports("avx512f"))
        return &kernels_avx512;
    if ((best || !strcmp(name, "avx2")) && __builtin_cpu_supports("avx2")) return &kernels_avx2;
#endif
    return name == NULL || !strcmp(name, "generic") ? &kernels_generic : NULL;
}

/* ---- sampling ----------------------------------------------------------------------------- */

/* Philox4x32-10: random bits that are a pure function of key and counter.
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". */
static void philox(const uint32_t key_in[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t key[2] = {key_in[0], key_in[1]}, c[4];
    memcpy(c, counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* The t-th random number of a job, 0 <= u < 1. */
static double uniform(const uint32_t key[4], uint32_t t) {
    uint32_t counter[4] = {t, 0, key[2], key[3]}, out[4];
    philox(key, counter, out);
    uint64_t bits = ((uint64_t)out[0] << 32 | out[1]) >> 11;
    return (double)bits * 0x1p-53;
}

/* Whether token a comes before token b: by weight, then by id. */
INLINE int before(const float *weights, int32_t a, int32_t b) {
    return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
}

static void sift(const float *weights, int32_t *heap, int n, int i) {
    for (;;) {
        int child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && before(weights, heap[child + 1], heap[child])) child++;
        if (!before(weights, heap[child], heap[i])) return;
        int32_t swap = heap[i];
        heap[i] = heap[child], heap[child] = swap;
        i = child;
    }
}

/* Draw the next token. Always a valid id, whatever the logits hold. */
static int draw(Worker *w, const float *logits, const Job *job) {
    const int vocab = w->model->vocab;
    int best = 0;
    float most = logits[0];
    for (int i = 1; i < vocab; i++)
        if (logits[i] > most) most = logits[i], best = i;
    if (job->temperature < 1e-6f) return best;
    float *weights = w->weights;
    w->model->kernels->weigh(logits, round_up(vocab, 16), most, job->temperature, weights);
    double total = 0.0;
    for (int i = 0; i < vocab; i++) total += (double)weights[i];
    double u = uniform(job->key, (uint32_t)(job->length - job->prompt));
    if (job->top_p >= 1.0) {
        double aim = u * total, reached = 0.0;
        for (int i = 0; i < vocab; i++) {
            reached += (double)weights[i];
            if (reached > aim) return i;
        }
        return best;
    }
    /* The nucleus is the shortest list of likeliest tokens that reaches top_p. Tokens below
     * `least` weigh less than 1 - top_p together, so none of them is in it. */
    double least = 0.5 * (1.0 - job->top_p) * total / (double)vocab;
    int32_t *heap = w->order;
    int n = 0;
    for (int i = 0; i < vocab; i++)
        if ((double)weights[i] >= least) heap[n++] = i;
    if (n == 0) return best;
    for (int i = n / 2 - 1; i >= 0; i--) sift(weights, heap, n, i);
    double nucleus = 0.0, wanted = job->top_p * total;
    int kept = 0, left = n;
    while (left > 0) { /* chosen tokens collect behind the heap, likeliest last */
        int32_t top = heap[0];
        heap[0] = heap[--left];
        sift(weights, heap, left, 0);
        heap[left] = top;
        kept++;
        nucleus += (double)weights[top];
        if (nucleus >= wanted) break;
    }
    double aim = u * nucleus, reached = 0.0;
    for (int i = 0; i < kept; i++) {
        int32_t token = heap[n - 1 - i];
        reached += (double)weights[token];
        if (reached > aim) return token;
    }
    return best;
}

/* ---- one worker's memory ------------------------------------------------------------------ */

static void worker_free(Worker *w) {
    free(w->x), free(w->h), free(w->qkv), free(w->attended), free(w->gated);
    free(w->logits), free(w->scores), free(w->weights), free(w->order);
    memset(w, 0, sizeof *w);
}

static int worker_init(Worker *w, const Model *m, int rows) {
    size_t n = (size_t)rows;
    memset(w, 0, sizeof *w);
    w->model = m;
    w->rows = rows;
    w->x = zeros(n * (size_t)m->dim_padded, sizeof(float));
    w->h = zeros(n * (size_t)m->dim_padded, sizeof(float));
    w->qkv = zeros(n * (size_t)m->qkv_padded, sizeof(float));
    w->attended = zeros(n * (size_t)m->heads * (size_t)m->head_padded, sizeof(float));
    w->gated = zeros(n * 2 * (size_t)m->ff_padded, sizeof(float));
    w->logits = zeros(n * (size_t)m->vocab_padded, sizeof(float));
    w->scores = zeros(4 * (size_t)m->scores_padded, sizeof(float));
    w->weights = zeros((size_t)m->vocab_padded, sizeof(float));
    w->order = zeros((size_t)m->vocab_padded, sizeof(int32_t));
    if (w->x && w->h && w->qkv && w->attended && w->gated && w->logits && w->scores &&
        w->weights && w->order)
        return 0;
    worker_free(w);
    return -1;
}

/* ---- the engine --------------------------------------------------------------------------- */

struct Engine;

typedef struct {
    struct Engine *engine;
    pthread_t thread;
    Worker worker;
    Slot *slots;
    Row *rows;
    int *running; /* active slots, those of one group side by side */
    Slot **row_slot;
    int active, reserved; /* pages promised to active slots */
    uint64_t groups;
    Page **spare;
    int n_spare, spare_room, allocated;
} Lane;

typedef struct Engine {
    Model *model;
    int n_lanes, started, slots, pages;
    int ends[MAX_ENDS], n_ends;
    Lane *lanes;
    pthread_mutex_t lock;
    pthread_cond_t work, news;
    Job *first, *last;
    Part *first_part, *last_part;
    Job *first_done, *last_done; /* a finished job is its own event: reporting it cannot fail */
    int outstanding; /* jobs waiting and active */
    atomic_int closing;
    pid_t owner;
} Engine;

static void job_free(Job *job) {
    if (job) free(job->tokens);
    free(job);
}

static void page_drop(Lane *lane, Page *page) {
    if (--page->owners > 0) return;
    if (lane->n_spare == lane->spare_room) {
        int room = lane->spare_room * 2 + 64;
        Page **spare = realloc(lane->spare, (size_t)room * sizeof *spare);
        if (!spare) {
            free(page);
            lane->allocated--;
            return;
        }
        lane->spare = spare, lane->spare_room = room;
    }
    lane->spare[lane->n_spare++] = page;
}

static void slot_cut(Lane *lane, Slot *slot, int pages) {
    while (slot->n_pages > pages) page_drop(lane, slot->pages[--slot->n_pages]);
}

static Page *page_take(Lane *lane) {
    const Model *m = lane->engine->model;
    if (lane->allocated >= lane->engine->pages)
        /* Finished slots keep their pages only in case their prompt comes again. */
        for (int s = 0; s < lane->engine->slots && lane->n_spare == 0; s++)
            if (!lane->slots[s].job) {
                lane->slots[s].computed = 0;
                slot_cut(lane, &lane->slots[s], 0);
            }
    Page *page;
    if (lane->n_spare > 0) {
        page = lane->spare[--lane->n_spare];
    } else {
        page = zeros(1, sizeof *page + m->page_floats * sizeof(float));
        if (!page) return NULL;
        lane->allocated++;
    }
    page->owners = 1;
    return page;
}

static int slot_add(Slot *slot, Page *page) {
    if (slot->n_pages == slot->pages_room) {
        int room = slot->pages_room * 2 + 16;
        Page **pages = realloc(slot->pages, (size_t)room * sizeof *pages);
        if (!pages) return -1;
        slot->pages = pages, slot->pages_room = room;
    }
    slot->pages[slot->n_pages++] = page;
    return 0;
}

/* Give a slot room for `positions`. */
static int slot_pages(Lane *lane, Slot *slot, int positions) {
    while (slot->n_pages * PAGE < positions) {
        Page *page = page_take(lane);
        if (!page) return -1;
        if (slot_add(slot, page)) {
            page_drop(lane, page);
            return -1;
        }
    }
    return 0;
}

/* Make a slot hold the first `length` positions of a donor, maybe itself, ready for more. */
static int slot_share(Lane *lane, Slot *slot, const Slot *donor, int length) {
    int whole = length / PAGE, part = length % PAGE;
    if (donor != slot) {
        slot_cut(lane, slot, 0);
        for (int p = 0; p < whole; p++) {
            if (slot_add(slot, donor->pages[p])) return -1;
            donor->pages[p]->owners++;
        }
    }
    Page *last = part ? donor->pages[whole] : NULL;
    if (last) last->owners++; /* so that it lives through the cut */
    slot_cut(lane, slot, whole);
    if (!last) return 0;
    if (last->owners == 1 && donor == slot) return slot_add(slot, last);
    Page *copy = page_take(lane);
    if (copy)
        memcpy(copy->numbers, last->numbers, lane->engine->model->page_floats * sizeof(float));
    page_drop(lane, last);
    if (!copy) return -1;
    if (!slot_add(slot, copy)) return 0;
    page_drop(lane, copy);
    return -1;
}

/* Remember which tokens the pages of a slot stand for. */
static int slot_tokens(Slot *slot, const int32_t *tokens, int from, int to) {
    if (to > slot->room) {
        int room = to + to / 2 + 64;
        int32_t *kept = realloc(slot->tokens, (size_t)room * sizeof *kept);
        if (!kept) return -1;
        slot->tokens = kept, slot->room = room;
    }
    if (to > from) memcpy(slot->tokens + from, tokens + from, (size_t)(to - from) * sizeof *tokens);
    return 0;
}

static int shared(const Slot *slot, const Job *job, int most) {
    int n = slot->computed < most ? slot->computed : most, i = 0;
    while (i < n && slot->tokens[i] == job->tokens[i]) i++;
    return i;
}

/* The slot for a job: one that is free and holds most of the prompt, if it holds as much as any. */
static Slot *choose_slot(Lane *lane, const Job *job, Slot **donor, int *length) {
    Slot *chosen = NULL;
    int chosen_length = -1;
    *donor = NULL, *length = 0;
    for (int s = 0; s < lane->engine->slots; s++) {
        Slot *slot = &lane->slots[s];
        int n = shared(slot, job, job->prompt - 1);
        if (n > *length) *length = n, *donor = slot;
        if (slot->job) continue;
        /* Among slots of no use, take an empty one before one whose prompt may come again. */
        int worth = n > 0 ? n : (slot->computed == 0 ? 0 : -1);
        if (!chosen || worth > chosen_length) chosen = slot, chosen_length = worth;
    }
    if (chosen_length >= *length) *donor = chosen, *length = chosen_length > 0 ? chosen_length : 0;
    return chosen;
}

/* Bring a slot to the point where its last prompt token is next; that token joins the batch. */
static int prefill(Lane *lane, Slot *slot, Slot *donor, int length) {
    Job *job = slot->job;
    const Model *m = lane->engine->model;
    slot->computed = 0;
    if (slot_share(lane, slot, donor ? donor : slot, length)) return -1;
    if (donor != slot && slot_tokens(slot, job->tokens, 0, length)) return -1;
    slot->computed = length;
    while (slot->computed < job->prompt - 1 && !lane->engine->closing && !job->cancelled) {
        int n = job->prompt - 1 - slot->computed;
        if (n > CHUNK) n = CHUNK;
        if (slot_pages(lane, slot, slot->computed + n)) return -1;
        for (int r = 0; r < n; r++)
            lane->rows[r] = (Row){job->tokens[slot->computed + r], slot->computed + r, slot->pages};
        m->kernels->forward(&lane->worker, lane->rows, n, 0);
        if (slot_tokens(slot, job->tokens, slot->computed, slot->computed + n)) return -1;
        slot->computed += n;
    }
    return 0;
}

/* With the lock held: tell the caller what was drawn since the last time. Without memory it is told
 * later, with the next part or at the end. */
static int tell(Engine *e, Job *job) {
    int n = job->length - job->told;
    Part *part = malloc(sizeof *part + (size_t)n * sizeof(int32_t));
    if (!part) return 0;
    part->next = NULL, part->id = job->id, part->n = n;
    memcpy(part->tokens, job->tokens + job->told, (size_t)n * sizeof(int32_t));
    if (e->last_part)
        e->last_part->next = part;
    else
        e->first_part = part;
    e->last_part = part;
    job->told = job->length;
    return 1;
}

/* With the lock held: free the slot of a job that ended. Its pages stay for the next draw. */
static void release(Lane *lane, Slot *slot) {
    Engine *e = lane->engine;
    Job *job = slot->job;
    slot->job = NULL;
    for (int i = 0, kept = 0; i < lane->active; i++)
        if (&lane->slots[lane->running[i]] != slot) lane->running[kept++] = lane->running[i];
    lane->reserved -= slot->reserved;
    lane->active--;
    e->outstanding--;
    if (job->cancelled) {
        job_free(job);
        return;
    }
    job->next = NULL;
    if (e->last_done)
        e->last_done->next = job;
    else
        e->first_done = job;
    e->last_done = job;
}

static int is_end(const Engine *e, int token) {
    for (int i = 0; i < e->n_ends; i++)
        if (e->ends[i] == token) return 1;
    return 0;
}

/* With the lock held: fill free slots from the queue. */
static void admit(Lane *lane) {
    Engine *e = lane->engine;
    while (e->first && !e->closing) {
        /* An even share per lane, so that few jobs still use all cores. */
        int share = (e->outstanding + e->n_lanes - 1) / e->n_lanes;
        if (lane->active >= e->slots || lane->active >= share) return;
        Job *job = e->first;
        int need = (job->prompt + job->limit + PAGE - 1) / PAGE;
        if (lane->active > 0 && lane->reserved + need > e->pages) return;
        e->first = job->next;
        if (!e->first) e->last = NULL;
        Slot *donor;
        int length;
        Slot *slot = choose_slot(lane, job, &donor, &length);
        int same = donor && length == job->prompt - 1;
        slot->group = same ? donor->group : ++lane->groups;
        slot->job = job, slot->reserved = need;
        int at = lane->active++; /* beside its group: shared pages are then read from the cache */
        for (; same && at > 0 && lane->slots[lane->running[at - 1]].group != slot->group; at--)
            lane->running[at] = lane->running[at - 1];
        if (same && at == 0) {
            /* No sibling is active: the last place is as good as any. */
            memmove(lane->running, lane->running + 1, (size_t)(lane->active - 1) * sizeof(int));
            at = lane->active - 1;
        }
        lane->running[at] = (int)(slot - lane->slots);
        lane->reserved += need;
        pthread_mutex_unlock(&e->lock);
        job->failed = prefill(lane, slot, donor, length);
        pthread_mutex_lock(&e->lock);
    }
}

/* Draw one token in every active slot. */
static void step(Lane *lane) {
    Engine *e = lane->engine;
    const Model *m = e->model;
    int n = 0;
    for (int i = 0; i < lane->active; i++) {
        Slot *slot = &lane->slots[lane->running[i]];
        Job *job = slot->job;
        if (job->cancelled || job->failed) continue;
        if (slot_pages(lane, slot, job->length) ||
            slot_tokens(slot, job->tokens, job->length - 1, job->length)) {
            job->failed = 1;
            continue;
        }
        lane->row_slot[n] = slot;
        lane->rows[n++] = (Row){job->tokens[job->length - 1], job->length - 1, slot->pages};
    }
    m->kernels->forward(&lane->worker, lane->rows, n, 1);
    for (int r = 0; r < n; r++) {
        Slot *slot = lane->row_slot[r];
        Job *job = slot->job;
        slot->computed = job->length;
        int token = draw(&lane->worker,
                         lane->worker.logits + (size_t)r * (size_t)m->vocab_padded, job);
        if (job->length == job->room) {
            int32_t *tokens = realloc(job->tokens, 2 * (size_t)job->room * sizeof *tokens);
            if (!tokens) {
                job->failed = 1;
                continue;
            }
            job->tokens = tokens, job->room *= 2;
        }
        job->tokens[job->length++] = token;
    }
}

static void *lane_run(void *argument) {
    Lane *lane = argument;
    Engine *e = lane->engine;
    /* Another library may have set this thread's parent to flush denormals or round otherwise. */
    fesetenv(FE_DFL_ENV);
    pthread_mutex_lock(&e->lock);
    while (!e->closing) {
        admit(lane);
        if (e->closing) break;
        if (lane->active == 0) {
            pthread_cond_wait(&e->work, &e->lock);
            continue;
        }
        pthread_mutex_unlock(&e->lock);
        step(lane);
        pthread_mutex_lock(&e->lock);
        int news = 0;
        for (int s = 0; s < e->slots; s++) {
            Slot *slot = &lane->slots[s];
            Job *job = slot->job;
            if (!job) continue;
            int drawn = job->length - job->prompt;
            job->finish = job->failed                                         ? NO_MEMORY
                          : drawn && is_end(e, job->tokens[job->length - 1]) ? STOP
                          : drawn >= job->limit                              ? LENGTH
                                                                             : MORE;
            if (job->finish != MORE || job->cancelled) {
                release(lane, slot);
                news = 1;
            } else if (job->stream) {
                news |= tell(e, job);
            }
        }
        if (news) pthread_cond_broadcast(&e->news);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static void engine_stop(Engine *e) {
    pthread_mutex_lock(&e->lock);
    e->closing = 1;
    pthread_cond_broadcast(&e->work);
    pthread_cond_broadcast(&e->news);
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->started; i++) pthread_join(e->lanes[i].thread, NULL);
    e->started = 0;
}

static void engine_clear(Engine *e) {
    for (int i = 0; e->lanes && i < e->n_lanes; i++) {
        Lane *lane = &e->lanes[i];
        for (int k = 0; lane->slots && k < e->slots; k++) {
            Slot *slot = &lane->slots[k];
            job_free(slot->job);
            free(slot->tokens);
            slot_cut(lane, slot, 0);
            free(slot->pages);
        }
        for (int p = 0; p < lane->n_spare; p++) free(lane->spare[p]);
        free(lane->spare), free(lane->slots), free(lane->rows), free(lane->row_slot);
        free(lane->running);
        worker_free(&lane->worker);
    }
    free(e->lanes);
    e->lanes = NULL;
    for (Job *job = e->first, *next; job; job = next) next = job->next, job_free(job);
    for (Job *job = e->first_done, *next; job; job = next) next = job->next, job_free(job);
    for (Part *part = e->first_part, *next; part; part = next) next = part->next, free(part);
    e->first = e->last = e->first_done = e->last_done = NULL;
    e->first_part = e->last_part = NULL;
}

/* ---- Python: Model ------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    Model m;
    uint32_t loaded;        /* tensors outside the layers */
    uint32_t *layer_loaded; /* tensors of each layer */
    int sealed;
} ModelObject;

enum { F32, F16, BF16 };

static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
    uint32_t bits;
    float value;
    if (exponent == 31)
        bits = sign | 0x7F800000u | mantissa << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    memcpy(&value, &bits, 4);
    return value;
}

static float number_at(const unsigned char *data, int type, size_t i) {
    uint16_t narrow;
    uint32_t bits;
    float value;
    if (type == F32) {
        memcpy(&value, data + 4 * i, 4);
        return value;
    }
    memcpy(&narrow, data + 2 * i, 2);
    if (type == F16) return half_to_float(narrow);
    bits = (uint32_t)narrow << 16;
    memcpy(&value, &bits, 4);
    return value;
}

static int finite_(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

/* Where a tensor goes. Outputs fall in groups of `out` that start `out_padded` columns apart, from
 * `column` on; inputs likewise, for the matrix that reads padded attention heads. */
typedef struct {
    Matrix *matrix;
    float *vector;
    int column, outputs, inputs, out, out_padded, in, in_padded;
} Place;

static int place(const Model *m, const char *name, int layer, Place *p, int *bit) {
    const int q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    const int hd = m->head_dim, hp = m->head_padded;
    *p = (Place){0};
    if (layer < 0) {
        if (!strcmp(name, "embed"))
            *bit = 0, *p = (Place){(Matrix *)&m->embed, NULL, 0, m->vocab, m->dim, 0, 0, 0, 0};
        else if (!strcmp(name, "norm"))
            *bit = 1, *p = (Place){NULL, m->norm, 0, m->dim, 1, 0, 0, 0, 0};
        else if (!strcmp(name, "head") && !m->tied)
            *bit = 2, *p = (Place){(Matrix *)&m->head, NULL, 0, m->vocab, m->dim, 0, 0, 0, 0};
        else
            return -1;
        return 0;
    }
    if (layer >= m->layers) return -1;
    Layer *l = &m->layer[layer];
    const int at_k = m->heads * hp, at_v = at_k + m->kv_heads * hp;
    const struct {
        const char *name;
        int known;
        Place place;
    } table[] = {
        {"q", 1, {&l->qkv, NULL, 0, q, m->dim, hd, hp, 0, 0}},
        {"k", 1, {&l->qkv, NULL, at_k, kv, m->dim, hd, hp, 0, 0}},
        {"v", 1, {&l->qkv, NULL, at_v, kv, m->dim, hd, hp, 0, 0}},
        {"o", 1, {&l->out, NULL, 0, m->dim, q, 0, 0, hd, hp}},
        {"gate", 1, {&l->gate_up, NULL, 0, m->ff, m->dim, 0, 0, 0, 0}},
        {"up", 1, {&l->gate_up, NULL, m->ff_padded, m->ff, m->dim, 0, 0, 0, 0}},
        {"down", 1, {&l->down, NULL, 0, m->dim, m->ff, 0, 0, 0, 0}},
        {"input_norm", 1, {NULL, l->input_norm, 0, m->dim, 1, 0, 0, 0, 0}},
        {"post_norm", 1, {NULL, l->post_norm, 0, m->dim, 1, 0, 0, 0, 0}},
        {"q_bias", m->qkv_bias, {NULL, l->qkv.bias, 0, q, 1, hd, hp, 0, 0}},
        {"k_bias", m->qkv_bias, {NULL, l->qkv.bias, at_k, kv, 1, hd, hp, 0, 0}},
        {"v_bias", m->qkv_bias, {NULL, l->qkv.bias, at_v, kv, 1, hd, hp, 0, 0}},
        {"q_norm", m->qk_norm, {NULL, l->q_norm, 0, hd, 1, 0, 0, 0, 0}},
        {"k_norm", m->qk_norm, {NULL, l->k_norm, 0, hd, 1, 0, 0, 0, 0}},
    };
    for (int i = 0; i < (int)(sizeof table / sizeof *table); i++)
        if (table[i].known && !strcmp(name, table[i].name)) {
            *p = table[i].place, *bit = i;
            return 0;
        }
    return -1;
}

static uint32_t wanted(const Model *m) {
    return 0x1FFu | (m->qkv_bias ? 0xE00u : 0) | (m->qk_norm ? 0x3000u : 0);
}

/* Copy a tensor to its place; -1 if it holds a number that is not finite. */
static int pack(const Place *p, const unsigned char *data, int type) {
    int bad = 0;
    for (int o = 0; o < p->outputs; o++) {
        int column = p->column + (p->out ? o / p->out * p->out_padded + o % p->out : o);
        size_t from = (size_t)o * (size_t)p->inputs;
        if (p->vector) {
            float value = number_at(data, type, from);
            bad |= !finite_(value);
            p->vector[column] = value;
            continue;
        }
        const Matrix *m = p->matrix;
        float *to = m->w + (size_t)(column / BLOCK) * BLOCK * (size_t)m->k + column % BLOCK;
        for (int i = 0; i < p->inputs; i++) {
            int row = p->in ? i / p->in * p->in_padded + i % p->in : i;
            float value = number_at(data, type, from + (size_t)i);
            bad |= !finite_(value);
            to[(size_t)row * BLOCK] = value;
        }
    }
    return bad ? -1 : 0;
}

static int matrix_init(Matrix *m, int k, int columns, int bias) {
    m->k = k, m->columns = round_up(columns, BLOCK);
    m->w = zeros((size_t)m->columns * (size_t)k, sizeof(float));
    m->bias = bias ? zeros((size_t)m->columns, sizeof(float)) : NULL;
    return m->w && (m->bias || !bias) ? 0 : -1;
}

static void matrix_free(Matrix *m) { free(m->w), free(m->bias); }

static int model_init(Model *m) {
    m->dim_padded = round_up(m->dim, BLOCK);
    m->head_padded = round_up(m->head_dim, 16);
    m->qkv_padded = round_up((m->heads + 2 * m->kv_heads) * m->head_padded, BLOCK);
    m->ff_padded = round_up(m->ff, BLOCK);
    m->vocab_padded = round_up(m->vocab, BLOCK);
    m->scores_padded = round_up(m->context, BLOCK * 2);
    m->scale = (float)(1.0 / sqrt((double)m->head_dim));
    m->page_layer = 2 * (size_t)m->kv_heads * (size_t)m->head_padded * PAGE;
    m->page_floats = m->page_layer * (size_t)m->layers;
    const int half = m->head_dim / 2;
    m->turns = m->context < TURNS ? m->context : TURNS;
    m->cosines = zeros((size_t)m->turns * (size_t)half, sizeof(float));
    m->sines = zeros((size_t)m->turns * (size_t)half, sizeof(float));
    m->norm = zeros((size_t)m->dim_padded, sizeof(float));
    m->layer = zeros((size_t)m->layers, sizeof(Layer));
    if (!m->cosines || !m->sines || !m->norm || !m->layer) return -1;
    for (int t = 0; t < m->turns; t++)
        angles(m->frequencies, half, t, m->cosines + (size_t)t * half, m->sines + (size_t)t * half);
    if (matrix_init(&m->embed, m->dim, m->vocab, 0)) return -1;
    if (!m->tied && matrix_init(&m->head, m->dim, m->vocab, 0)) return -1;
    for (int i = 0; i < m->layers; i++) {
        Layer *l = &m->layer[i];
        l->input_norm = zeros((size_t)m->dim_padded, sizeof(float));
        l->post_norm = zeros((size_t)m->dim_padded, sizeof(float));
        l->q_norm = zeros((size_t)m->head_padded, sizeof(float));
        l->k_norm = zeros((size_t)m->head_padded, sizeof(float));
        if (!l->input_norm || !l->post_norm || !l->q_norm || !l->k_norm ||
            matrix_init(&l->qkv, m->dim, (m->heads + 2 * m->kv_heads) * m->head_padded,
                        m->qkv_bias) ||
            matrix_init(&l->out, m->heads * m->head_padded, m->dim, 0) ||
            matrix_init(&l->gate_up, m->dim, 2 * m->ff_padded, 0) ||
            matrix_init(&l->down, m->ff, m->dim, 0))
            return -1;
    }
    return 0;
}

static void model_clear(Model *m) {
    for (int i = 0; m->layer && i < m->layers; i++) {
        Layer *l = &m->layer[i];
        matrix_free(&l->qkv), matrix_free(&l->out), matrix_free(&l->gate_up);
        matrix_free(&l->down);
        free(l->input_norm), free(l->post_norm), free(l->q_norm), free(l->k_norm);
    }
    matrix_free(&m->embed), matrix_free(&m->head);
    free(m->norm), free(m->layer), free(m->frequencies), free(m->cosines), free(m->sines);
    memset(m, 0, sizeof *m);
}

static PyTypeObject *model_type, *engine_type;

static PyObject *Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"vocab", "dim",     "layers",      "heads",    "kv_heads", "head_dim",
                            "ff",    "context", "frequencies", "eps",      "qkv_bias", "qk_norm",
                            "tied",  "kernels", NULL};
    Model m = {0};
    PyObject *frequencies;
    const char *kernels = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiiiiiiiOfppp|z", names, &m.vocab, &m.dim,
                                     &m.layers, &m.heads, &m.kv_heads, &m.head_dim, &m.ff,
                                     &m.context, &frequencies, &m.eps, &m.qkv_bias, &m.qk_norm,
                                     &m.tied, &kernels))
        return NULL;
    if (m.vocab < 1 || m.vocab > 1 << 20 || m.dim < 1 || m.dim > 1 << 16 || m.layers < 1 ||
        m.layers > 1024 || m.heads < 1 || m.heads > 1024 || m.kv_heads < 1 ||
        m.heads % m.kv_heads || m.head_dim < 2 || m.head_dim > MAX_HEAD || m.head_dim % 2 ||
        m.ff < 1 || m.ff > 1 << 20 || m.context < 2 || m.context > 1 << 20 || !(m.eps >= 0.0f)) {
        PyErr_SetString(PyExc_ValueError, "a size is out of range");
        return NULL;
    }
    m.kernels = kernels_named(kernels);
    if (!m.kernels) {
        PyErr_Format(PyExc_ValueError, "no kernels named %s on this machine", kernels);
        return NULL;
    }
    const int half = m.head_dim / 2;
    m.frequencies = zeros((size_t)half, sizeof(double));
    if (!m.frequencies) return PyErr_NoMemory();
    if (PySequence_Size(frequencies) != half) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "one frequency per pair of a head is needed");
        free(m.frequencies);
        return NULL;
    }
    for (int i = 0; i < half; i++) {
        PyObject *item = PySequence_GetItem(frequencies, i);
        double f = item ? PyFloat_AsDouble(item) : -1.0;
        Py_XDECREF(item);
        if (!(f >= 0.0 && f <= 1.0)) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a frequency is not 0 to 1");
            free(m.frequencies);
            return NULL;
        }
        m.frequencies[i] = f;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ModelObject *self = (ModelObject *)allocate(type, 0);
    if (!self) {
        free(m.frequencies);
        return NULL;
    }
    self->m = m;
    self->layer_loaded = zeros((size_t)m.layers, sizeof(uint32_t));
    if (!self->layer_loaded || model_init(&self->m)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void Model_dealloc(PyObject *object) {
    ModelObject *self = (ModelObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    model_clear(&self->m);
    free(self->layer_loaded);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *Model_load(PyObject *object, PyObject *args) {
    ModelObject *self = (ModelObject *)object;
    const char *name, *dtype;
    int layer, bit, type;
    Py_buffer data;
    Place p;
    if (!PyArg_ParseTuple(args, "sisy*", &name, &layer, &dtype, &data)) return NULL;
    PyObject *result = NULL;
    if (!strcmp(dtype, "F32"))
        type = F32;
    else if (!strcmp(dtype, "F16"))
        type = F16;
    else if (!strcmp(dtype, "BF16"))
        type = BF16;
    else {
        PyErr_Format(PyExc_ValueError, "%s is not a type of numbers that can be read", dtype);
        goto end;
    }
    if (self->sealed) {
        PyErr_SetString(PyExc_ValueError, "the model is in use");
        goto end;
    }
    if (place(&self->m, name, layer, &p, &bit)) {
        PyErr_Format(PyExc_ValueError, "no tensor %s in layer %d", name, layer);
        goto end;
    }
    if ((size_t)data.len != (size_t)p.outputs * (size_t)p.inputs * (type == F32 ? 4u : 2u)) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes", name, data.len);
        goto end;
    }
    int bad;
    Py_BEGIN_ALLOW_THREADS
    bad = pack(&p, data.buf, type);
    Py_END_ALLOW_THREADS
    if (layer < 0)
        self->loaded |= 1u << bit;
    else
        self->layer_loaded[layer] |= 1u << bit;
    result = PyBool_FromLong(!bad);
end:
    PyBuffer_Release(&data);
    return result;
}

/* From here on the weights are read only. */
static int seal(ModelObject *self) {
    uint32_t missing = (self->m.tied ? 3u : 7u) & ~self->loaded;
    for (int i = 0; i < self->m.layers; i++)
        missing |= wanted(&self->m) & ~self->layer_loaded[i];
    if (missing) {
        PyErr_SetString(PyExc_ValueError, "not all tensors are loaded");
        return -1;
    }
    self->sealed = 1;
    return 0;
}

/* Token ids from a buffer of int32, checked against the vocabulary; NULL with an error set. */
static int32_t *read_tokens(const Model *m, const Py_buffer *data, int *n) {
    Py_ssize_t count = data->len / 4;
    if (data->len % 4 || count < 1 || count > m->context) {
        PyErr_Format(PyExc_ValueError, "a prompt of %zd bytes does not fit", data->len);
        return NULL;
    }
    int32_t *tokens = malloc((size_t)data->len);
    if (!tokens) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(tokens, data->buf, (size_t)data->len);
    for (Py_ssize_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= m->vocab) {
            PyErr_Format(PyExc_ValueError, "token %d is not in the vocabulary", (int)tokens[i]);
            free(tokens);
            return NULL;
        }
    *n = (int)count;
    return tokens;
}

/* The logits of a position, as floats, or how likely its next token is, as a double. */
static void write_logits(const Worker *w, const int32_t *tokens, int n, int pos, const float *logits,
                         char *to) {
    (void)tokens, (void)n;
    size_t width = (size_t)w->model->vocab * sizeof(float);
    memcpy(to + (size_t)pos * width, logits, width);
}

static void write_likelihood(const Worker *w, const int32_t *tokens, int n, int pos,
                             const float *logits, char *to) {
    if (pos + 1 == n) return;
    const int vocab = w->model->vocab;
    float most = logits[0];
    for (int i = 1; i < vocab; i++)
        if (logits[i] > most) most = logits[i];
    w->model->kernels->weigh(logits, round_up(vocab, 16), most, 1.0f, w->weights);
    double total = 0;
    for (int i = 0; i < vocab; i++) total += (double)w->weights[i];
    double likelihood = (double)logits[tokens[pos + 1]] - (double)most - log(total);
    memcpy(to + (size_t)pos * sizeof likelihood, &likelihood, sizeof likelihood);
}

typedef void (*Write)(const Worker *, const int32_t *, int, int, const float *, char *);

/* Read tokens and write something for each position; `width` bytes for all but the last `less`. */
static PyObject *each_position(ModelObject *self, PyObject *args, Write write, size_t width,
                               int less) {
    const Model *m = &self->m;
    Py_buffer data;
    int n = 0;
    if (!PyArg_ParseTuple(args, "y*", &data)) return NULL;
    int32_t *tokens = seal(self) ? NULL : read_tokens(m, &data, &n);
    PyBuffer_Release(&data);
    if (!tokens) return NULL;
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((size_t)(n - less) * width));
    char *to = result ? PyBytes_AsString(result) : NULL;
    int n_pages = (n + PAGE - 1) / PAGE, failed = 0;
    Page **pages = zeros((size_t)n_pages, sizeof *pages);
    Worker w = {0};
    Row rows[CHUNK];
    if (!to || !pages || worker_init(&w, m, CHUNK)) failed = 1;
    for (int p = 0; !failed && p < n_pages; p++)
        if (!(pages[p] = zeros(1, sizeof(Page) + m->page_floats * sizeof(float)))) failed = 1;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        fenv_t outside;
        fegetenv(&outside);
        fesetenv(FE_DFL_ENV);
        for (int start = 0; start < n; start += CHUNK) {
            int here = n - start < CHUNK ? n - start : CHUNK;
            for (int r = 0; r < here; r++)
                rows[r] = (Row){tokens[start + r], start + r, pages};
            m->kernels->forward(&w, rows, here, 1);
            for (int r = 0; r < here; r++)
                write(&w, tokens, n, start + r, w.logits + (size_t)r * (size_t)m->vocab_padded, to);
        }
        fesetenv(&outside);
        Py_END_ALLOW_THREADS
    }
    for (int p = 0; pages && p < n_pages; p++) free(pages[p]);
    free(pages), free(tokens);
    worker_free(&w);
    if (failed) {
        Py_XDECREF(result);
        return PyErr_NoMemory();
    }
    return result;
}

static PyObject *Model_logits(PyObject *object, PyObject *args) {
    ModelObject *self = (ModelObject *)object;
    return each_position(self, args, write_logits, (size_t)self->m.vocab * sizeof(float), 0);
}

static PyObject *Model_likelihoods(PyObject *object, PyObject *args) {
    return each_position((ModelObject *)object, args, write_likelihood, sizeof(double), 1);
}

/* ---- Python: Engine ----------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Engine e;
    int ready; /* lock and conditions exist */
    ModelObject *model;
} EngineObject;

/* A forked child has the memory but not the threads: it must neither wait for them nor free. */
static int ours(const Engine *e) { return e->owner == getpid(); }

static int engine_init(Engine *e) {
    const Model *m = e->model;
    int rows = e->slots > CHUNK ? e->slots : CHUNK;
    e->lanes = zeros((size_t)e->n_lanes, sizeof(Lane));
    if (!e->lanes) return -1;
    for (int i = 0; i < e->n_lanes; i++) {
        Lane *lane = &e->lanes[i];
        lane->engine = e;
        lane->slots = zeros((size_t)e->slots, sizeof(Slot));
        lane->rows = zeros((size_t)rows, sizeof(Row));
        lane->row_slot = zeros((size_t)e->slots, sizeof(Slot *));
        lane->running = zeros((size_t)e->slots, sizeof(int));
        if (!lane->slots || !lane->rows || !lane->row_slot || !lane->running ||
            worker_init(&lane->worker, m, rows))
            return -1;
    }
    for (int i = 0; i < e->n_lanes; i++) {
        if (pthread_create(&e->lanes[i].thread, NULL, lane_run, &e->lanes[i])) return -1;
        e->started++;
    }
    return 0;
}

static PyObject *Engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "threads", "slots", "pages", "ends", NULL};
    PyObject *model, *ends;
    int threads, slots, pages;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!iiiO", names, model_type, &model, &threads,
                                     &slots, &pages, &ends))
        return NULL;
    if (threads < 1 || threads > 1024 || slots < 1 || slots > 4096 || pages < 1) {
        PyErr_SetString(PyExc_ValueError, "threads, slots or pages are out of range");
        return NULL;
    }
    if (seal((ModelObject *)model)) return NULL;
    Py_ssize_t n_ends = PySequence_Size(ends);
    if (n_ends < 0) return NULL;
    if (n_ends > MAX_ENDS) {
        PyErr_Format(PyExc_ValueError, "%zd end tokens are too many", n_ends);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    EngineObject *self = (EngineObject *)allocate(type, 0);
    if (!self) return NULL;
    Engine *e = &self->e;
    for (Py_ssize_t i = 0; i < n_ends; i++) {
        PyObject *item = PySequence_GetItem(ends, i);
        e->ends[i] = item ? (int)PyLong_AsLong(item) : -1;
        Py_XDECREF(item);
        if (PyErr_Occurred()) {
            Py_DECREF(self);
            return NULL;
        }
    }
    e->n_ends = (int)n_ends;
    e->n_lanes = threads, e->slots = slots, e->pages = pages;
    e->owner = getpid();
    Py_INCREF(model);
    self->model = (ModelObject *)model;
    e->model = &self->model->m;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
#endif
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->news, &clock);
    pthread_condattr_destroy(&clock);
    self->ready = 1;
    if (engine_init(e)) {
        Py_DECREF(self);
        PyErr_SetString(PyExc_MemoryError, "no memory or threads for the engine");
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *Engine_close(PyObject *object, PyObject *unused) {
    EngineObject *self = (EngineObject *)object;
    (void)unused;
    if (ours(&self->e)) {
        Py_BEGIN_ALLOW_THREADS
        engine_stop(&self->e);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static void Engine_dealloc(PyObject *object) {
    EngineObject *self = (EngineObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->ready && ours(&self->e)) {
        Py_BEGIN_ALLOW_THREADS
        engine_stop(&self->e);
        Py_END_ALLOW_THREADS
        engine_clear(&self->e);
        pthread_mutex_destroy(&self->e.lock);
        pthread_cond_destroy(&self->e.work);
        pthread_cond_destroy(&self->e.news);
    }
    Py_XDECREF((PyObject *)self->model);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *Engine_submit(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"id", "tokens", "key", "temperature", "top_p", "limit", "stream", NULL};
    EngineObject *self = (EngineObject *)object;
    Engine *e = &self->e;
    unsigned long long id;
    Py_buffer tokens, key;
    double temperature, top_p;
    int limit, stream, n = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Ky*y*ddip", names, &id, &tokens, &key,
                                     &temperature, &top_p, &limit, &stream))
        return NULL;
    Job *job = calloc(1, sizeof *job);
    if (!job)
        PyErr_NoMemory();
    else if (key.len != 16)
        PyErr_SetString(PyExc_ValueError, "a key has sixteen bytes");
    else if (!(temperature >= 0.0) || temperature > 1e6 || !(top_p > 0.0) || top_p > 1.0)
        PyErr_SetString(PyExc_ValueError, "temperature or top_p is out of range");
    else if ((job->tokens = read_tokens(e->model, &tokens, &n)) != NULL &&
             (limit < 1 || limit > e->model->context - n))
        PyErr_Format(PyExc_ValueError, "%d tokens do not fit behind a prompt of %d", limit, n);
    if (!PyErr_Occurred()) {
        /* Bytes in a fixed order, so that all machines draw alike. */
        const unsigned char *b = key.buf;
        for (int i = 0; i < 4; i++)
            job->key[i] = (uint32_t)b[4 * i] | (uint32_t)b[4 * i + 1] << 8 |
                          (uint32_t)b[4 * i + 2] << 16 | (uint32_t)b[4 * i + 3] << 24;
        job->id = id, job->temperature = (float)temperature, job->top_p = top_p;
        job->prompt = job->length = job->room = job->told = n;
        job->limit = limit, job->stream = stream;
    }
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&key);
    if (PyErr_Occurred()) {
        job_free(job);
        return NULL;
    }
    pthread_mutex_lock(&e->lock);
    int closed = e->closing;
    if (!closed) {
        if (e->last)
            e->last->next = job;
        else
            e->first = job;
        e->last = job;
        e->outstanding++;
        pthread_cond_broadcast(&e->work);
    }
    pthread_mutex_unlock(&e->lock);
    if (closed) {
        job_free(job);
        PyErr_SetString(PyExc_ValueError, "the engine is closed");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *Engine_cancel(PyObject *object, PyObject *args) {
    Engine *e = &((EngineObject *)object)->e;
    unsigned long long id;
    if (!PyArg_ParseTuple(args, "K", &id)) return NULL;
    pthread_mutex_lock(&e->lock);
    Job *before_ = NULL;
    for (Job *job = e->first; job; before_ = job, job = job->next)
        if (job->id == id) {
            if (before_)
                before_->next = job->next;
            else
                e->first = job->next;
            if (e->last == job) e->last = before_;
            e->outstanding--;
            job_free(job);
            break;
        }
    for (int i = 0; i < e->n_lanes; i++)
        for (int s = 0; s < e->slots; s++) {
            Job *job = e->lanes[i].slots[s].job;
            if (job && job->id == id) job->cancelled = 1;
        }
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

static PyObject *event(uint64_t id, const int32_t *tokens, int n, int finish) {
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) {
        PyObject *token = PyLong_FromLong(tokens[i]);
        if (!token || PyList_SetItem(list, i, token)) Py_CLEAR(list);
    }
    return list ? Py_BuildValue("KNi", (unsigned long long)id, list, finish) : NULL;
}

static int append(PyObject *list, PyObject *item) {
    int failed = !item || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed;
}

static PyObject *Engine_take(PyObject *object, PyObject *args) {
    Engine *e = &((EngineObject *)object)->e;
    double seconds;
    if (!PyArg_ParseTuple(args, "d", &seconds)) return NULL;
    if (!(seconds >= 0.0) || seconds > 3600.0) {
        PyErr_SetString(PyExc_ValueError, "seconds to wait are 0 to 3600");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    Part *part;
    Job *job;
    Py_BEGIN_ALLOW_THREADS
    struct timespec until;
#if defined(__APPLE__)
    clock_gettime(CLOCK_REALTIME, &until);
#else
    clock_gettime(CLOCK_MONOTONIC, &until);
#endif
    int64_t nanoseconds = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += (time_t)(nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);
    pthread_mutex_lock(&e->lock);
    while (!e->first_part && !e->first_done && !e->closing)
        if (pthread_cond_timedwait(&e->news, &e->lock, &until) == ETIMEDOUT) break;
    part = e->first_part, job = e->first_done;
    e->first_part = e->last_part = NULL;
    e->first_done = e->last_done = NULL;
    pthread_mutex_unlock(&e->lock);
    Py_END_ALLOW_THREADS
    int failed = 0;
    for (Part *next; part; part = next) { /* before the ends: a job's parts come first */
        next = part->next;
        failed = failed || append(list, event(part->id, part->tokens, part->n, MORE));
        free(part);
    }
    for (Job *next; job; job = next) {
        next = job->next;
        failed = failed || append(list, event(job->id, job->tokens + job->told,
                                              job->length - job->told, job->finish));
        job_free(job);
    }
    if (failed) Py_CLEAR(list);
    return list;
}

/* ---- Python: the module ------------------------------------------------------------------- */

static PyObject *supported(PyObject *module, PyObject *unused) {
    static const char *names[] = {"generic", "avx2", "avx512"};
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < 3; i++)
        if (kernels_named(names[i]) && append(list, PyUnicode_FromString(names[i]))) Py_CLEAR(list);
    return list;
}

static PyMethodDef model_methods[] = {
    {"load", Model_load, METH_VARARGS, "Copy one tensor; False if a number is not finite."},
    {"logits", Model_logits, METH_VARARGS, "Compute float32 logits, (token, vocab), as bytes."},
    {"likelihoods", Model_likelihoods, METH_VARARGS,
     "Compute the log-probability of each token but the first, as float64."},
    {NULL, NULL, 0, NULL}};

static PyMethodDef engine_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))Engine_submit, METH_VARARGS | METH_KEYWORDS,
     "Queue a job."},
    {"cancel", Engine_cancel, METH_VARARGS, "Forget a job; it sends no further event."},
    {"take", Engine_take, METH_VARARGS, "Wait for events: a list of (id, tokens, finish)."},
    {"close", Engine_close, METH_NOARGS, "Stop the threads."},
    {NULL, NULL, 0, NULL}};

static PyMethodDef module_methods[] = {
    {"supported", supported, METH_NOARGS, "Name the kernels that this machine can run."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot model_slots[] = {{Py_tp_new, Model_new},
                                    {Py_tp_dealloc, Model_dealloc},
                                    {Py_tp_methods, model_methods},
                                    {Py_tp_doc, "Weights of one model."},
                                    {0, NULL}};

static PyType_Slot engine_slots[] = {{Py_tp_new, Engine_new},
                                     {Py_tp_dealloc, Engine_dealloc},
                                     {Py_tp_methods, engine_methods},
                                     {Py_tp_doc, "Threads that work through jobs."},
                                     {0, NULL}};

static PyType_Spec model_spec = {"stillroom.models.local._engine.Model", sizeof(ModelObject), 0,
                                 Py_TPFLAGS_DEFAULT, model_slots};
static PyType_Spec engine_spec = {"stillroom.models.local._engine.Engine", sizeof(EngineObject), 0,
                                  Py_TPFLAGS_DEFAULT, engine_slots};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_engine", "A batched decoder in C.", -1, module_methods,
    NULL,                  NULL,      NULL,                      NULL};

PyMODINIT_FUNC PyInit__engine(void) {
    PyObject *module = PyModule_Create(&module_def);
    if (!module) return NULL;
    model_type = (PyTypeObject *)PyType_FromSpec(&model_spec);
    engine_type = (PyTypeObject *)PyType_FromSpec(&engine_spec);
    if (!model_type || !engine_type ||
        PyModule_AddObjectRef(module, "Model", (PyObject *)model_type) ||
        PyModule_AddObjectRef(module, "Engine", (PyObject *)engine_type)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
