/* attention_plan_internal.h: which keys a block of query rows sees, and what is added to its scores: masks, biases and
 * slopes (one copy each instruction set). */
#ifndef MICA_KERNELS_ATTENTION_PLAN_INTERNAL_H
#define MICA_KERNELS_ATTENTION_PLAN_INTERNAL_H

#include "attention/attention_tile_internal.h"

/* keys [j, j + n) are seen by the strips (VW lanes each) [s0, s1); partial: not by all of their rows */
typedef struct segment {
  int64_t j, n;
  int     s0, s1, partial;
} segment;

/* lane l is row i0 + l of T rows and has its own key at own + l. blocks end at row T: lanes before `start` of the first
 * block are idle; their rows are zeros, and nothing of them is stored */
typedef struct block_plan {
  const mica_attention_args *a;
  int64_t b, T, S, i0, own, N, window;       /* N: the prefix */
  int64_t j0, j1;                            /* keys of this block */
  int64_t all0[STRIPS], all1[STRIPS];        /* keys that all rows of a strip see */
  int64_t from[STRIPS], to[STRIPS];          /* the keys that some see, where they are one range; else from is -1 */
  int     start, first, count;               /* first: the first strip with a row */
  ahead_list *ahead;
  segment at[4 * STRIPS + 8];
} block_plan;

static inline int64_t blocks_of(int64_t T) { return (T + LANES - 1) / LANES; }

static inline int64_t prefix_of(const mica_attention_args *a, int64_t b) {
  if (a->mask != MICA_ATTENTION_PREFIX && a->mask != MICA_ATTENTION_CONTEXT) return 0;
  if (!a->prefix_lengths.v.data) return a->prefix;
  micak_index_row row = micak_index_row_of(&a->prefix_lengths, b);
  return micak_index_in(&row, 0);
}

/* keys that some row of own keys [a, b] sees, in up to two ranges, and those that all of them see, [all0, all1) */
typedef struct key_ranges {
  int64_t from[2], to[2], all0, all1;
} key_ranges;
static inline key_ranges ranges_of(const block_plan *p, int64_t a, int64_t b, int64_t S) {
  key_ranges r = { { 0, 0 }, { b + 1, 0 }, 0, a + 1 };
  switch (p->a->mask) {
    case MICA_ATTENTION_FULL: r.to[0] = r.all1 = S; break;
    case MICA_ATTENTION_PREFIX: r.to[0] = at_least(b + 1, p->N), r.all1 = at_least(a + 1, p->N); break;
    case MICA_ATTENTION_WINDOW: r.from[0] = a - p->window + 1, r.all0 = b - p->window + 1; break;
    case MICA_ATTENTION_CONTEXT:
      r.all1 = p->N;
      if (a <= p->N) r.to[0] = at_least(b + 1, p->N);
      else r.to[0] = p->N, r.from[1] = a, r.to[1] = b + 1;
      break;
    default: break;
  }
  return r;
}

/* rows of block n (of blocks_of(T)), keys [j0, j1) of S */
static inline void plan_block(block_plan *p, const mica_attention_args *a, int64_t b, int64_t n, int64_t T, int64_t S,
                              int64_t j0, int64_t j1) {
  enum { MOST = 4 * STRIPS + 4 };
  key_ranges range[STRIPS];
  int64_t cut[MOST], common0 = j0, common1 = j1;
  int cuts = 0;
  p->a = a, p->b = b, p->N = prefix_of(a, b), p->window = a->window, p->T = T, p->S = S, p->j0 = j0, p->j1 = j1, p->count = 0;
  p->i0 = T - (blocks_of(T) - n) * LANES;
  p->own = p->i0 + S - T;
  p->start = p->i0 < 0 ? (int)-p->i0 : 0;
  p->first = p->start / VW;
#define CUT(x) cut[cuts++] = at_most(at_least(x, j0), j1)
  for (int s = p->first; s < STRIPS; s++) {
    range[s] = ranges_of(p, p->own + at_least(s * VW, p->start), p->own + (s + 1) * VW - 1, S);
    for (int k = 0; k < 2; k++) {
      CUT(range[s].from[k]);
      CUT(range[s].to[k]);
    }
    p->all0[s] = range[s].all0, p->all1[s] = range[s].all1;
    common0 = at_least(common0, range[s].all0);
    common1 = at_most(common1, range[s].all1);
  }
  if (common1 - common0 >= 2 * ROW_TILE) { /* worth a segment that needs no mask */
    CUT(common0);
    CUT(common1);
  }
#undef CUT
  for (int i = 1; i < cuts; i++) {
    int64_t x = cut[i];
    int k = i;
    for (; k > 0 && cut[k - 1] > x; k--) cut[k] = cut[k - 1];
    cut[k] = x;
  }
  for (int i = 0; i + 1 < cuts; i++) {
    segment g = { cut[i], cut[i + 1] - cut[i], STRIPS, 0, 0 };
    if (g.n == 0) continue;
    for (int s = p->first; s < STRIPS; s++)
      for (int k = 0; k < 2; k++)
        if (range[s].from[k] <= g.j && g.j < range[s].to[k]) g.s0 = s < g.s0 ? s : g.s0, g.s1 = s + 1;
    if (g.s1 == 0) continue;
    for (int s = g.s0; s < g.s1; s++) g.partial |= g.j < range[s].all0 || g.j + g.n > range[s].all1;
    p->at[p->count++] = g;
  }
  for (int s = p->first; s < STRIPS; s++) {
    p->from[s] = p->to[s] = 0;
    for (const segment *g = p->at; g < p->at + p->count; g++) {
      if (s < g->s0 || g->s1 <= s || p->from[s] < 0) continue;
      if (p->to[s] == 0) p->from[s] = g->j;
      else if (p->to[s] != g->j) p->from[s] = -1;
      p->to[s] = g->j + g->n;
    }
  }
}

/* plans of the last few blocks: heads and tasks of one shape have the same */
typedef struct plan_memo {
  int        known[ATTENTION_TILE];
  block_plan plan[ATTENTION_TILE];
} plan_memo;
static inline const block_plan *plan_of(plan_memo *memo, const mica_attention_args *a, int64_t b, int64_t n, int64_t T,
                                        int64_t S, int64_t j0, int64_t j1, ahead_list *ahead) {
  int64_t at = n % ATTENTION_TILE;
  block_plan *p = &memo->plan[at];
  if (!memo->known[at] || p->T != T || p->S != S || p->j0 != j0 || p->j1 != j1 || p->N != prefix_of(a, b) ||
      p->i0 != T - (blocks_of(T) - n) * LANES)
    plan_block(p, a, b, n, T, S, j0, j1);
  memo->known[at] = 1;
  p->b = b;
  p->ahead = ahead;
  return p;
}

/* ---- rows of a block: lanes before the first row are zeros ---- */

static inline void pack_block(const head_view *v, const block_plan *p, int64_t D, int64_t Dp, float factor, float *to) {
  int64_t from = p->first * VW;
  memset(to + from * Dp, 0, (size_t)((p->start - from) * Dp) * sizeof *to);
  pack(v, p->i0 + p->start, LANES - p->start, D, Dp, factor, to + p->start * Dp);
}
static inline void add_block(const head_view *v, const block_plan *p, int64_t D, int64_t Dp, float factor, float *to) {
  for (int64_t l = p->start; v->at && l < LANES; l++)
    for (int64_t d = 0; d < D; d++) to[l * Dp + d] += factor * v->at[(p->i0 + l) * v->row + d * v->col];
}
static inline void unpack_block(const head_view *v, const block_plan *p, int64_t D, int64_t Dp, const float *from,
                                const float *over, float factor) {
  unpack(v, p->i0 + p->start, LANES - p->start, D, Dp, from + p->start * Dp, over ? over + p->start : NULL, factor);
}
/* one number a row; idle lanes get `idle` */
static inline void lanes_in(const head_view *v, const block_plan *p, float idle, float *to) {
  for (int64_t l = p->first * VW; l < LANES; l++)
    to[l] = l < p->start ? idle : v->at ? v->at[(p->i0 + l) * v->row] : 0;
}
static inline void lanes_out(const head_view *v, const block_plan *p, const float *from) {
  for (int64_t l = p->start; v->at && l < LANES; l++) {
    float *to = v->at + (p->i0 + l) * v->row;
    *to = v->add ? *to + from[l] : from[l];
  }
}

/* keys j of this block that strip v may see, in order */
#define EACH_KEY(p, v, j)                                      \
  for (const segment *g_ = (p)->at; g_ < (p)->at + (p)->count; g_++) \
    if (g_->s0 <= (v) && (v) < g_->s1)                         \
      for (int64_t j = g_->j - (p)->j0, end_ = j + g_->n; j < end_; j++)

/* lane numbers 0 .. VW - 1 */
static inline vf lane_numbers(void) {
  static const float number[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  return v_load(number);
}
/* own key of each lane of a strip */
static inline vf own_keys(const block_plan *p, int s) {
  return v_set1((float)(p->own + s * VW)) + lane_numbers();
}

/* scores of keys that a row does not see become -inf: p = 0 follows in every face */
static inline void hide(const block_plan *p, float *P) {
  for (const segment *g = p->at; g < p->at + p->count; g++) {
    if (!g->partial) continue;
    for (int s = g->s0; s < g->s1; s++) {
      vf high = own_keys(p, s), low = v_set1(-INFINITY);
      if (p->a->mask == MICA_ATTENTION_PREFIX) high = v_max(high, v_set1((float)p->N - 1));
      if (p->a->mask == MICA_ATTENTION_WINDOW) low = high - (float)p->window;
      if (p->a->mask == MICA_ATTENTION_CONTEXT) low = high - 1.0f;
      int64_t j = p->all0[s] <= g->j ? at_least(g->j, at_most(p->all1[s], g->j + g->n)) : g->j;
      float *at = P + (j - p->j0) * LANES + s * VW;
      for (; j < g->j + g->n; j++, at += LANES) {
        vf key = v_set1((float)j);
        if (p->a->mask == MICA_ATTENTION_CONTEXT && j < p->N) continue;
        v_store(at, v_select(vm_and(v_le(key, high), v_gt(key, low)), v_load(at), v_set1(-INFINITY)));
      }
    }
  }
}

/* ---- what is added to the scores, and its cotangents ---- */

static inline int has_terms(const mica_attention_args *a) {
  return a->bias.v.data || a->slopes.v.data || a->block_mask.v.data;
}
/* one head of bias: rows and columns */
static inline head_view bias_view(const mica_wire *w, int64_t b, int64_t h) {
  head_view v = { (float *)micak_task(w, NULL, b), w->stride[1], w->stride[2], 0 };
  if (!v.at) return v;
  v.at += h * w->stride[0];
  v.add = (w->flags & MICA_ADD) || micak_same_slot(w, NULL, b);
  return v;
}
static inline vf distances(const block_plan *p, int s, int64_t j) { return v_abs(own_keys(p, s) - (float)j); }

/* P += bias - slope distance and, with `hides`, -inf where the block mask hides; tangents come without */
static inline void add_terms(const block_plan *p, const head_view *bias, float slope, int hides, float *P) {
  const mica_attention_args *a = p->a;
  const micak_index_row none = { NULL, 0, 0 };
  for (const segment *g = p->at; g < p->at + p->count; g++)
    for (int s = g->s0; s < g->s1; s++) {
      float *at = P + (g->j - p->j0) * LANES + s * VW;
      for (int64_t j = g->j; slope != 0 && j < g->j + g->n; j++) {
        float *cell = at + (j - g->j) * LANES;
        v_store(cell, v_load(cell) - slope * distances(p, s, j));
      }
      for (int l = 0; l < VW; l++) {
        int64_t i = p->i0 + s * VW + l;
        if (i < 0) continue;
        for (int64_t j = 0; bias->at && j < g->n; j++) at[j * LANES + l] += bias->at[i * bias->row + (g->j + j) * bias->col];
        if (!hides || !a->block_mask.v.data) continue;
        micak_index_row row = none;
        const char *task = (const char *)micak_task(&a->block_mask.v, NULL, p->b);
        if (task)
          row = (micak_index_row){ task + i / a->block_q * a->block_mask.v.stride[0] *
                                            (int64_t)mica_dtype_size(a->block_mask.v.dtype),
                                   a->block_mask.v.stride[1], a->block_mask.v.dtype };
        for (int64_t j = 0; j < g->n; j++)
          if (!micak_index_in(&row, (g->j + j) / a->block_k)) at[j * LANES + l] = -INFINITY;
      }
    }
}

/* cotangents of one head's bias: what no row and key meet gets 0, the rest is added */
static inline void clear_bias(const mica_attention_args *a, const head_view *bias) {
  if (!bias->at || bias->add) return;
  for (int64_t i = 0; i < a->P; i++)
    for (int64_t j = 0; j < a->Q; j++) bias->at[i * bias->row + j * bias->col] = 0;
}
static inline void bias_cotangent(const block_plan *p, const float *dS, const head_view *bias) {
  for (const segment *g = p->at; bias->at && g < p->at + p->count; g++)
    for (int l = (int)at_least(g->s0 * VW, p->start); l < g->s1 * VW; l++)
      for (int64_t j = g->j; j < g->j + g->n; j++)
        bias->at[(p->i0 + l) * bias->row + j * bias->col] += dS[(j - p->j0) * LANES + l];
}
static inline double slope_cotangent(const block_plan *p, const float *dS) {
  double sum = 0;
  for (int s = p->first; s < STRIPS; s++) {
    vf part = v_zero();
    EACH_KEY(p, s, j) part = v_fma(v_load(dS + j * LANES + s * VW), distances(p, s, j + p->j0), part);
    sum -= (double)v_sum(part);
  }
  return sum;
}

/* ---- products over the segments ---- */

/* P = or += <key, query lane>, in sums of 64 terms: their rounding goes through exp into all that follows */
OUTLINE void scores(const block_plan *p, int64_t D, const float *K, int64_t ldk, const float *QT, float *P, int add) {
  enum { TERMS = 64 };
  for (const segment *g = p->at; g < p->at + p->count; g++) {
    int64_t j = g->j - p->j0, lane = g->s0 * VW;
    for (int64_t d = 0; d < D; d += TERMS)
      product(scores_tiles, g->n, g->s1 - g->s0, at_most(D - d, TERMS), K + j * ldk + d, ldk, QT + d * LANES + lane, LANES,
              P + j * LANES + lane, LANES, add || d ? PLUS : 0, p->ahead);
  }
}

/* the first lane of a segment that sees key j or a later one of it */
static inline int64_t first_lane(const block_plan *p, const segment *g, int64_t j) {
  int64_t lane = at_least(g->s0 * VW, p->start);
  int grows = p->a->mask == MICA_ATTENTION_CAUSAL || p->a->mask == MICA_ATTENTION_WINDOW ||
              (p->a->mask == MICA_ATTENTION_PREFIX && j >= p->N);
  return grows ? at_most(at_least(lane, j - p->own), g->s1 * VW) : lane;
}
/* G (keys of this block, Dp), rows ldg apart, = or += P X; keys that no row sees get 0 or stay */
OUTLINE void gather(const block_plan *p, int64_t Dp, const float *P, const float *X, float *G,
                                             int64_t ldg, int add) {
  int64_t nv = Dp / VW, width = even(nv, WIDE), done = p->j0;
  for (const segment *g = p->at; g < p->at + p->count; g++) {
    int64_t step = even(g->n, most_rows[width - 1]);
    for (; !add && done < g->j; done++) memset(G + (done - p->j0) * ldg, 0, (size_t)Dp * sizeof *G);
    for (int64_t m = 0; m < g->n; m += step) {
      int64_t j = g->j - p->j0 + m, lane = first_lane(p, g, g->j + m);
      product(gather_tiles, at_most(g->n - m, step), nv, g->s1 * VW - lane, P + j * LANES + lane, LANES, X + lane * Dp,
              Dp, G + j * ldg, ldg, add, p->ahead);
    }
    done = g->j + g->n;
  }
  for (; !add && done < p->j1; done++) memset(G + (done - p->j0) * ldg, 0, (size_t)Dp * sizeof *G);
}

/* the last key, and one, that row i may see */
static inline int64_t row_end(const block_plan *p, int64_t lane) {
  int64_t end = p->own + lane + 1;
  if (p->a->mask == MICA_ATTENTION_FULL) return p->j1;
  if (p->a->mask == MICA_ATTENTION_PREFIX || p->a->mask == MICA_ATTENTION_CONTEXT) end = at_least(end, p->N);
  return at_most(end, p->j1);
}
/* O (LANES, Dp) = or += P V for lanes [lane, lane + mr) of strip s and the keys of [c, end): runs of segments */
static inline int apply_runs(const block_plan *p, int s, int64_t lane, int64_t mr, int64_t c, int64_t end, int64_t Dp,
                             const float *P, const float *V, float *O, int add) {
  const int64_t nv = Dp / VW;
  int64_t from = at_least(p->from[s], c), to = at_most(p->to[s], end);
  if (p->from[s] >= 0) { /* one range */
    if (from >= to) return 0;
    product(apply_tiles, mr, nv, to - from, P + (from - p->j0) * LANES + lane, 1, V + (from - p->j0) * Dp, Dp,
            O + lane * Dp, Dp, add, p->ahead);
    return 1;
  }
  int begun = 0;
  for (const segment *g = p->at; g < p->at + p->count; g++) {
    if (s < g->s0 || g->s1 <= s) continue;
    from = at_least(g->j, c), to = at_most(g->j + g->n, end);
    if (from >= to) continue;
    product(apply_tiles, mr, nv, to - from, P + (from - p->j0) * LANES + lane, 1, V + (from - p->j0) * Dp, Dp,
            O + lane * Dp, Dp, add || begun, p->ahead);
    begun = 1;
  }
  return begun;
}
/* of all lanes and keys; keys in chunks, so that their values stay in the first cache. rows that see nothing get 0 */
OUTLINE void apply(const block_plan *p, int64_t Dp, const float *P, const float *V, float *O,
                                            int add) {
  enum { CHUNK = 64 };
  const int64_t width = even(Dp / VW, WIDE);
  int8_t begun[LANES] = { 0 };
  for (int64_t c = p->j0; c == p->j0 || c < p->j1; c += CHUNK)
    for (int s = p->first; s < STRIPS; s++) {
      int64_t begin = at_least(s * VW, p->start), rows = (s + 1) * VW - begin, step = even(rows, most_rows[width - 1]);
      for (int64_t lane = begin; lane < begin + rows; lane += step) {
        int64_t mr = at_most(begin + rows - lane, step), end = at_most(row_end(p, lane + mr - 1), c + CHUNK);
        begun[lane] |= (int8_t)apply_runs(p, s, lane, mr, c, end, Dp, P, V, O, add || begun[lane]);
        if (!add && !begun[lane] && c + CHUNK >= p->j1) memset(O + lane * Dp, 0, (size_t)(mr * Dp) * sizeof *O);
      }
    }
}

#endif
