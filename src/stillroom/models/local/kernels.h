/* Arithmetic of the decoder, included once per instruction set.
 *
 * The includer defines LANES (floats in a register), TILE (rows of a register tile), TARGET (a
 * function attribute) and NAME(x) (x with a suffix).
 *
 * Every output is a function of its own row alone, and every sum has one order:
 *   - matrix products add over k one by one, whatever the tile;
 *   - sums over a row run in sixteen lanes that are then folded in halves, whatever LANES is.
 * So text does not depend on the batch, its size, the thread or the processor. No instruction
 * here may fuse a multiply with an add: the fused result differs, and not every machine has it.
 */

#define V NAME(floats)
#define I NAME(ints)
#define GROUP (16 / LANES) /* registers in a group of sixteen lanes */
#define QUERIES (LANES == 16 ? 4 : 2) /* heads at once, likewise */
#define NEAR_BLOCKS (LANES / 4) /* pages of keys at once: as many as registers hold */

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

#define SPLAT(x) ((x) - (V){0})
#define SELECT(mask, a, b) ((V)(((I)(a) & (mask)) | ((I)(b) & ~(mask))))
#define LOAD(p) (*(const V *)(p))
#define STORE(p, v) (*(V *)(p) = (v))

/* e**x for x <= 88; 0 below -87. Cephes expf: within 2 ulp. */
INLINE TARGET V NAME(exp)(V x) {
    const V magic = SPLAT(12582912.0f); /* 1.5 * 2**23: adding it rounds to a whole number */
    I tiny = x < SPLAT(-87.0f);
    I huge_ = x > SPLAT(88.0f);
    x = SELECT(tiny, SPLAT(-87.0f), x);
    x = SELECT(huge_, SPLAT(88.0f), x);
    V shifted = x * SPLAT(1.44269504088896341f) + magic;
    V n = shifted - magic;
    I power = (I)shifted - (I)magic;
    V r = x - n * SPLAT(0.693359375f);
    r = r - n * SPLAT(-2.12194440e-4f);
    V y = SPLAT(1.9875691500e-4f);
    y = y * r + SPLAT(1.3981999507e-3f);
    y = y * r + SPLAT(8.3334519073e-3f);
    y = y * r + SPLAT(4.1665795894e-2f);
    y = y * r + SPLAT(1.6666665459e-1f);
    y = y * r + SPLAT(5.0000001201e-1f);
    y = y * (r * r) + r + SPLAT(1.0f);
    V scaled = y * (V)((power + 127) << 23);
    return (V)((I)scaled & ~tiny);
}

/* Add up sixteen lanes in halves. */
INLINE TARGET float NAME(fold)(const V *group) {
    float lane[16] __attribute__((aligned(64)));
    for (int j = 0; j < GROUP; j++) STORE(lane + j * LANES, group[j]);
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

/* mr rows times 2 * LANES columns; k is summed in order in every cell. */
INLINE TARGET void NAME(tile)(const float *x, size_t ldx, const float *w, int k, const float *bias,
                              int add, float *out, size_t ldo, const int mr) {
    V sum[TILE][2];
    for (int r = 0; r < mr; r++) sum[r][0] = sum[r][1] = (V){0};
    for (int i = 0; i < k; i++) {
        V w0 = LOAD(w + (size_t)i * BLOCK), w1 = LOAD(w + (size_t)i * BLOCK + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++) {
            V b = SPLAT(x[(size_t)r * ldx + (size_t)i]);
            sum[r][0] += b * w0;
            sum[r][1] += b * w1;
        }
    }
    for (int r = 0; r < mr; r++) {
        for (int j = 0; j < 2; j++) {
            V y = sum[r][j];
            float *to = out + (size_t)r * ldo + j * LANES;
            if (bias) y += LOAD(bias + j * LANES);
            if (add) y = LOAD(to) + y;
            STORE(to, y);
        }
    }
}

/* out = x W + bias, or out += x W + bias. out has room for the padded columns of the matrix. */
static TARGET void NAME(product)(const float *x, size_t ldx, int rows, const Matrix *m, int add,
                                 float *out, size_t ldo) {
    for (int column = 0; column < m->columns; column += BLOCK) {
        const float *panel = m->w + (size_t)column * (size_t)m->k;
        for (int part = 0; part < BLOCK; part += 2 * LANES) {
            const float *bias = m->bias ? m->bias + column + part : NULL;
            float *to = out + column + part;
            int r = 0;
#define ROWS(mr)                                                                        \
    NAME(tile)(x + (size_t)r * ldx, ldx, panel + part, m->k, bias, add,                 \
               to + (size_t)r * ldo, ldo, mr)
            for (; r + TILE <= rows; r += TILE) ROWS(TILE);
#if TILE > 4
            for (; r + 4 <= rows; r += 4) ROWS(4);
#endif
            for (; r + 2 <= rows; r += 2) ROWS(2);
            for (; r < rows; r++) ROWS(1);
#undef ROWS
        }
    }
}

/* Root mean square norm of one row; n is padded to a multiple of 16 with zeros. */
static TARGET void NAME(norm)(const float *x, const float *weight, int n, int padded, float eps,
                              float *out) {
    V squares[GROUP];
    for (int j = 0; j < GROUP; j++) squares[j] = (V){0};
    for (int i = 0; i < padded; i += 16)
        for (int j = 0; j < GROUP; j++) {
            V v = LOAD(x + i + j * LANES);
            squares[j] += v * v;
        }
    float scale = 1.0f / sqrtf(NAME(fold)(squares) / (float)n + eps);
    for (int i = 0; i < padded; i += LANES)
        STORE(out + i, LOAD(weight + i) * (LOAD(x + i) * SPLAT(scale)));
}

/* gate = silu(gate) * up, in place. */
static TARGET void NAME(gate)(float *gate, const float *up, int padded) {
    for (int i = 0; i < padded; i += LANES) {
        V g = LOAD(gate + i);
        V y = g / (SPLAT(1.0f) + NAME(exp)(-g));
        STORE(gate + i, y * LOAD(up + i));
    }
}

/* Scores of `queries` heads that share their keys, against `blocks` pages of sixteen keys each.
 *
 * Keys and values of all slots together exceed the near caches, and waiting for them took most of
 * the time: so the keys of the pages `ahead` are called for, and the values of these pages. */
INLINE TARGET void NAME(score)(const float *q, size_t ldq, Page *const *pages, Page *const *ahead,
                               size_t at, int head, int padded, float scale, float *scores,
                               size_t lds, const int queries, const int blocks) {
    V sum[QUERIES][NEAR_BLOCKS][GROUP];
    const float *keys[NEAR_BLOCKS], *coming[NEAR_BLOCKS];
    for (int b = 0; b < blocks; b++) {
        keys[b] = pages[b]->numbers + at;
        coming[b] = ahead[b]->numbers + at;
        for (int g = 0; g < queries; g++)
            for (int j = 0; j < GROUP; j++) sum[g][b][j] = (V){0};
    }
    for (int i = 0; i < head; i++) {
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
            __builtin_prefetch(coming[b] + i * PAGE, 0, 3);
            __builtin_prefetch(keys[b] + (padded + i) * PAGE, 0, 2);
        }
#pragma GCC unroll 4
        for (int g = 0; g < queries; g++) {
            V s = SPLAT(q[(size_t)g * ldq + (size_t)i]);
#pragma GCC unroll 4
            for (int b = 0; b < blocks; b++)
#pragma GCC unroll 4
                for (int j = 0; j < GROUP; j++)
                    sum[g][b][j] += s * LOAD(keys[b] + i * PAGE + j * LANES);
        }
    }
    for (int g = 0; g < queries; g++)
        for (int b = 0; b < blocks; b++)
            for (int j = 0; j < GROUP; j++)
                STORE(scores + (size_t)g * lds + b * PAGE + j * LANES,
                      sum[g][b][j] * SPLAT(scale));
}

/* Values of n positions, weighed by the scores of `queries` heads: `wide` registers of a head. */
INLINE TARGET void NAME(mix)(const float *scores, size_t lds, const float *inverse,
                             Page *const *pages, size_t at, int head, int n, float *out, size_t ldo,
                             const int queries, const int wide) {
    V sum[QUERIES][4];
    for (int g = 0; g < queries; g++)
        for (int j = 0; j < wide; j++) sum[g][j] = (V){0};
    for (int t = 0; t < n; t += PAGE) {
        const float *values = pages[t / PAGE]->numbers + at;
        int here = n - t < PAGE ? n - t : PAGE;
        for (int u = 0; u < here; u++, values += head) {
#pragma GCC unroll 4
            for (int g = 0; g < queries; g++) {
                V p = SPLAT(scores[(size_t)g * lds + (size_t)(t + u)]);
#pragma GCC unroll 4
                for (int j = 0; j < wide; j++) sum[g][j] += p * LOAD(values + j * LANES);
            }
        }
    }
    for (int g = 0; g < queries; g++)
        for (int j = 0; j < wide; j++)
            STORE(out + (size_t)g * ldo + j * LANES, sum[g][j] * SPLAT(inverse[g]));
}

/* Softmax over n scores in place; lanes up to the next multiple of 16 become 0. Returns 1/sum:
 * the caller scales, since it has fewer numbers to multiply. */
static TARGET float NAME(softmax)(float *scores, int n) {
    int padded = (n + 15) / 16 * 16;
    for (int i = n; i < padded; i++) scores[i] = -1e30f;
    V top = LOAD(scores);
    for (int i = LANES; i < padded; i += LANES) {
        V v = LOAD(scores + i);
        I more = v > top;
        top = SELECT(more, v, top);
    }
    float lane[LANES] __attribute__((aligned(64)));
    STORE(lane, top);
    float most = lane[0];
    for (int j = 1; j < LANES; j++) most = lane[j] > most ? lane[j] : most;
    V sum[GROUP];
    for (int j = 0; j < GROUP; j++) sum[j] = (V){0};
    for (int i = 0; i < padded; i += 16)
        for (int j = 0; j < GROUP; j++) {
            V e = NAME(exp)(LOAD(scores + i + j * LANES) - SPLAT(most));
            STORE(scores + i + j * LANES, e);
            sum[j] += e;
        }
    return 1.0f / NAME(fold)(sum);
}

/* Attention of `queries` heads of one row that share keys and values. */
INLINE TARGET void NAME(heads)(const Model *m, Page *const *pages, Page *const *next,
                               size_t at_keys, size_t at_values, int n, const float *q, float *out,
                               float *scores, const int queries) {
    const int head = m->head_padded;
    const size_t lds = (size_t)m->scores_padded, ldq = (size_t)head;
    float inverse[QUERIES];
    int t = 0;
#define BLOCKS(blocks)                                                                        \
    NAME(score)(q, ldq, pages + t / PAGE, ahead, at_keys, m->head_dim, head, m->scale,        \
                scores + t, lds, queries, blocks)
    for (; t + (NEAR_BLOCKS - 1) * PAGE < n; t += NEAR_BLOCKS * PAGE) {
        Page *ahead[NEAR_BLOCKS];
        for (int b = 0; b < NEAR_BLOCKS; b++) {
            int then = t + (NEAR_BLOCKS + b) * PAGE;
            ahead[b] = then < n ? pages[then / PAGE] : next[0];
        }
        BLOCKS(NEAR_BLOCKS);
    }
    for (; t < n; t += PAGE) {
        Page *const *ahead = t + PAGE < n ? pages + t / PAGE + 1 : next;
        BLOCKS(1);
    }
#undef BLOCKS
    for (int g = 0; g < queries; g++)
        inverse[g] = NAME(softmax)(scores + (size_t)g * lds, n);
    int i = 0;
#define WIDE(wide)                                                                            \
    NAME(mix)(scores, lds, inverse, pages, at_values + (size_t)i, head, n, out + i, ldq,      \
              queries, wide)
    for (; i + 4 * LANES <= head; i += 4 * LANES) WIDE(4);
    for (; i + 2 * LANES <= head; i += 2 * LANES) WIDE(2);
    for (; i < head; i += LANES) WIDE(1);
#undef WIDE
}

/* Attention of one row over its own slot, positions 0 to n - 1. */
static TARGET void NAME(attend)(const Model *m, Page *const *pages, Page *const *next, int layer,
                                int n, const float *q, float *out, float *scores) {
    const int per = m->heads / m->kv_heads;
    const size_t head = (size_t)m->head_padded, span = head * PAGE;
    for (int k = 0; k < m->kv_heads; k++) {
        const size_t at_keys = (size_t)layer * m->page_layer + (size_t)(2 * k) * span;
        int h = 0;
#if LANES == 16
        for (; h + 4 <= per; h += 4, q += 4 * head, out += 4 * head)
            NAME(heads)(m, pages, next, at_keys, at_keys + span, n, q, out, scores, 4);
#endif
        for (; h + 2 <= per; h += 2, q += 2 * head, out += 2 * head)
            NAME(heads)(m, pages, next, at_keys, at_keys + span, n, q, out, scores, 2);
        for (; h < per; h++, q += head, out += head)
            NAME(heads)(m, pages, next, at_keys, at_keys + span, n, q, out, scores, 1);
    }
}

/* Turn a head by its position, in the half-and-half layout of Hugging Face checkpoints. */
static TARGET void NAME(turn)(float *x, const float *cosines, const float *sines, int half) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

/* Probabilities times a constant: e**((logit - most) / temperature), 0 to 1. */
static TARGET void NAME(weigh)(const float *logits, int padded, float most, float temperature,
                               float *out) {
    for (int i = 0; i < padded; i += LANES)
        STORE(out + i, NAME(exp)((LOAD(logits + i) - SPLAT(most)) / SPLAT(temperature)));
}

/* Run rows through the model: fill their keys and values, and w->logits if wanted.
 *
 * Rows of one slot come in the order of their positions; keys and values of earlier positions are
 * in its pages already or are earlier rows of this call. */
static TARGET void NAME(forward)(Worker *w, const Row *rows, int n, int want_logits) {
    const Model *m = w->model;
    const size_t d = (size_t)m->dim_padded, q_width = (size_t)m->heads * (size_t)m->head_padded,
                 kv_width = (size_t)m->kv_heads * (size_t)m->head_padded,
                 ldq = (size_t)m->qkv_padded, ldg = 2 * (size_t)m->ff_padded;
    const int head = m->head_padded, half = m->head_dim / 2;
    for (int r = 0; r < n; r++) {
        float *x = w->x + (size_t)r * d;
        const Matrix *e = &m->embed;
        const float *column = e->w + (size_t)(rows[r].token / BLOCK) * BLOCK * (size_t)e->k +
                              (size_t)(rows[r].token % BLOCK);
        for (int i = 0; i < e->k; i++) x[i] = column[(size_t)i * BLOCK];
        for (size_t i = (size_t)e->k; i < d; i++) x[i] = 0.0f;
    }
    for (int l = 0; l < m->layers; l++) {
        const Layer *layer = &m->layer[l];
        for (int r = 0; r < n; r++)
            NAME(norm)(w->x + (size_t)r * d, layer->input_norm, m->dim, m->dim_padded, m->eps,
                       w->h + (size_t)r * d);
        NAME(product)(w->h, d, n, &layer->qkv, 0, w->qkv, ldq);
        for (int r = 0; r < n; r++) {
            float *q = w->qkv + (size_t)r * ldq, *k = q + q_width, *v = k + kv_width;
            int pos = rows[r].pos;
            float near[2 * MAX_HEAD];
            const float *cosines = m->cosines + (size_t)pos * (size_t)half,
                        *sines = m->sines + (size_t)pos * (size_t)half;
            if (pos >= m->turns) {
                angles(m->frequencies, half, pos, near, near + half);
                cosines = near, sines = near + half;
            }
            for (int h = 0; h < m->heads + m->kv_heads; h++) {
                float *x = q + (size_t)h * (size_t)head;
                if (m->qk_norm)
                    NAME(norm)(x, h < m->heads ? layer->q_norm : layer->k_norm, m->head_dim, head,
                               m->eps, x);
                NAME(turn)(x, cosines, sines, half);
            }
            const size_t span = (size_t)head * PAGE;
            float *to = rows[r].pages[pos / PAGE]->numbers + (size_t)l * m->page_layer;
            for (int h = 0; h < m->kv_heads; h++, to += 2 * span) {
                /* Keys lie sixteen positions side by side, so that scores need no shuffles. */
                for (int i = 0; i < head; i++) to[i * PAGE + pos % PAGE] = k[h * head + i];
                memcpy(to + span + (size_t)(pos % PAGE * head), v + h * head,
                       (size_t)head * sizeof(float));
            }
        }
        for (int r = 0; r < n; r++)
            NAME(attend)(m, rows[r].pages, rows[r + 1 < n ? r + 1 : r].pages, l, rows[r].pos + 1, w->qkv + (size_t)r * ldq,
                         w->attended + (size_t)r * q_width, w->scores);
        NAME(product)(w->attended, q_width, n, &layer->out, 1, w->x, d);
        for (int r = 0; r < n; r++)
            NAME(norm)(w->x + (size_t)r * d, layer->post_norm, m->dim, m->dim_padded, m->eps,
                       w->h + (size_t)r * d);
        NAME(product)(w->h, d, n, &layer->gate_up, 0, w->gated, ldg);
        for (int r = 0; r < n; r++) {
            float *g = w->gated + (size_t)r * ldg;
            NAME(gate)(g, g + m->ff_padded, m->ff_padded);
        }
        NAME(product)(w->gated, ldg, n, &layer->down, 1, w->x, d);
    }
    if (!want_logits) return;
    for (int r = 0; r < n; r++)
        NAME(norm)(w->x + (size_t)r * d, m->norm, m->dim, m->dim_padded, m->eps,
                   w->h + (size_t)r * d);
    NAME(product)(w->h, d, n, m->tied ? &m->embed : &m->head, 0, w->logits,
                  (size_t)m->vocab_padded);
}

static const Kernels NAME(kernels) = {NAME(forward), NAME(weigh)};

#undef V
#undef I
#undef GROUP
#undef NEAR_BLOCKS
#undef QUERIES
#undef SPLAT
#undef SELECT
#undef LOAD
#undef STORE
#undef LANES
#undef TILE
#undef TARGET
#undef NAME
