/* attention on the CPU, the faces that walk down: forward and jvp. a unit is (task, query head, tile of query rows) */
#include "attention/attention_plan_internal.h"

/* raw scores of strip s to e^(score - top) in E (P itself, or apart); over: 1 / their sum, 0 where a row sees nothing */
static inline void softmax_strip(const block_plan *p, int s, const float *P, float *E, float *over, float *lse) {
  vf top = v_set1(-INFINITY), sum = v_zero();
  P += s * VW, E += s * VW;
  EACH_KEY(p, s, j) top = v_max(v_load(P + j * LANES), top);
  top = v_select(v_gt(top, v_set1(-INFINITY)), top, v_zero());
  EACH_KEY(p, s, j) {
    vf e = exp_to_zero(v_load(P + j * LANES) - top);
    sum += e;
    v_store(E + j * LANES, e);
  }
  vm empty = v_eq(sum, v_zero());
  v_store(over + s * VW, v_select(empty, v_zero(), 1.0f / sum));
  v_store(lse + s * VW, v_select(empty, v_zero(), top + v_log(sum)));
}

/* P: scores to p; P_t: tangents of the scores to p (s_t - lse_t) */
static inline void tangent_strip(const block_plan *p, int s, float *P, float *P_t, const float *lse, float *lse_t) {
  vf sum = v_zero(), minus = v_load(lse + s * VW);
  P += s * VW, P_t += s * VW;
  EACH_KEY(p, s, j) {
    vf e = exp_to_zero(v_load(P + j * LANES) - minus);
    sum = v_fma(e, v_load(P_t + j * LANES), sum);
    v_store(P + j * LANES, e);
  }
  EACH_KEY(p, s, j) v_store(P_t + j * LANES, v_load(P + j * LANES) * (v_load(P_t + j * LANES) - sum));
  v_store(lse_t + s * VW, sum);
}

/* one tile of query rows of one head: blocks [n0, n1). value: out and lse; tangent: their tangents; both: the bits of the
 * one after the other */
INLINE void down(const mica_attention_args *a, int64_t b, int64_t h, int64_t n0, int64_t n1, int64_t T, const int value,
                 const int tangent, plan_memo *memo, ahead_list *ahead, float *scratch) {
  const int64_t S = micak_rows(a->k.offsets, b, a->S), D = a->D, Dp = round_up(D, VW), g = attention_key_head(a, h);
  const head_view q = head_of(&a->q.v, a->q.offsets, b, h), k = head_of(&a->k.v, a->k.offsets, b, g);
  const head_view v = head_of(&a->v.v, a->v.offsets, b, g), out = head_of(&a->out.v, a->out.offsets, b, h);
  const head_view q_t = head_of(&a->q.t, a->q.offsets, b, h), k_t = head_of(&a->k.t, a->k.offsets, b, g);
  const head_view v_t = head_of(&a->v.t, a->v.offsets, b, g), out_t = head_of(&a->out.t, a->out.offsets, b, h);
  const head_view lse_v = head_of(&a->lse.v, a->lse.offsets, b, h), lse_t = head_of(&a->lse.t, a->lse.offsets, b, h);
  const head_view bias = bias_view(&a->bias.v, b, h), bias_t = bias_view(&a->bias.t, b, h);
  const float scale = head_scale(a, b, h), scale_t = head_cell(&a->scale.t, b, h);
  const float slope = head_cell(&a->slopes.v, b, h), slope_t = head_cell(&a->slopes.t, b, h);
  const int moves = q_t.at || scale_t != 0;
  float *K = take(&scratch, S * Dp), *V = take(&scratch, S * Dp), *Q = take(&scratch, LANES * Dp);
  float *QT = take(&scratch, LANES * Dp), *P = take(&scratch, S * LANES), *over = take(&scratch, LANES);
  float *lse = take(&scratch, LANES), *lse_dot = take(&scratch, LANES), *E = P;
  float *K_t = NULL, *V_t = NULL, *QT_t = NULL, *P_t = NULL;
  const block_plan *p;
  if (tangent) {
    K_t = take(&scratch, S * Dp), V_t = take(&scratch, S * Dp);
    QT_t = take(&scratch, LANES * Dp), P_t = take(&scratch, S * LANES);
  }
  if (tangent && value) E = take(&scratch, S * LANES);
  p = plan_of(memo, a, b, n0, T, S, 0, S, ahead);
  const int64_t begin = p->count ? p->at[0].j : 0; /* the first block sees the first, the last the most */
  p = plan_of(memo, a, b, n1 - 1, T, S, 0, S, ahead);
  const int64_t keys = p->count ? p->at[p->count - 1].j + p->at[p->count - 1].n - begin : 0;
  pack(&k, begin, keys, D, Dp, 1, K + begin * Dp);
  pack(&v, begin, keys, D, Dp, 1, V + begin * Dp);
  if (tangent && k_t.at) pack(&k_t, begin, keys, D, Dp, 1, K_t + begin * Dp);
  if (tangent && v_t.at) pack(&v_t, begin, keys, D, Dp, 1, V_t + begin * Dp);
  for (int64_t n = n0; n < n1; n++) {
    p = plan_of(memo, a, b, n, T, S, 0, S, ahead);
    pack_block(&q, p, D, Dp, scale, Q);
    transpose_block(Q, p->first, Dp, QT);
    scores(p, D, K, Dp, QT, P, 0);
    if (tangent) {
      if (moves) { /* of scale q */
        pack_block(&q_t, p, D, Dp, scale, Q);
        if (scale_t != 0) add_block(&q, p, D, Dp, scale_t, Q);
        transpose_block(Q, p->first, Dp, QT_t);
        scores(p, D, K, Dp, QT_t, P_t, 0);
      } else {
        memset(P_t, 0, (size_t)(S * LANES) * sizeof *P_t);
      }
      if (k_t.at) scores(p, D, K_t, Dp, QT, P_t, 1);
      if (bias_t.at || slope_t != 0) add_terms(p, &bias_t, slope_t, 0, P_t);
    }
    if (has_terms(a)) add_terms(p, &bias, slope, 1, P);
    hide(p, P);
    if (value) {
      for (int s = p->first; s < STRIPS; s++) softmax_strip(p, s, P, E, over, lse);
      lanes_out(&lse_v, p, lse);
      apply(p, Dp, E, V, Q, 0);
      unpack_block(&out, p, D, Dp, Q, over, 1);
    }
    if (tangent) {
      lanes_in(&lse_v, p, INFINITY, lse);
      for (int s = p->first; s < STRIPS; s++) tangent_strip(p, s, P, P_t, lse, lse_dot);
      lanes_out(&lse_t, p, lse_dot);
      apply(p, Dp, P_t, V, Q, 0);
      if (v_t.at) apply(p, Dp, P, V_t, Q, 1);
      unpack_block(&out_t, p, D, Dp, Q, NULL, 1);
    }
  }
}
typedef void (*down_fn)(const mica_attention_args *a, int64_t b, int64_t h, int64_t n0, int64_t n1, int64_t T,
                        plan_memo *memo, ahead_list *ahead, float *scratch);
#define DOWN(name, value, tangent)                                                                                   \
  static void name(const mica_attention_args *a, int64_t b, int64_t h, int64_t n0, int64_t n1, int64_t T,            \
                   plan_memo *memo, ahead_list *ahead, float *scratch) {                                             \
    down(a, b, h, n0, n1, T, value, tangent, memo, ahead, scratch);                                                  \
  }
DOWN(down_value, 1, 0)
DOWN(down_tangent, 0, 1)
DOWN(down_both, 1, 1)

/* what the units after `unit` will pack, and the rows that they will write */
static inline void look_ahead(ahead_list *list, const mica_attention_args *a, const int value, const int tangent,
                              int64_t unit, int64_t last, int begins) {
  int64_t b, h, heads, D = a->D;
  heads = ahead_heads(unit, last, a->H, D, at_least(a->T, a->S), tangent ? 8 : 4, &b, &h, begins);
  if (!heads) return;
  int64_t T = micak_rows(a->q.offsets, b, a->T), S = micak_rows(a->k.offsets, b, a->S), g = attention_key_head(a, h);
  int64_t of_keys = heads == 1 ? 1 : a->G;
  list->count = list->k = 0;
  ahead_of(list, &a->q.v, a->q.offsets, b, h, heads, D, T);
  ahead_of(list, &a->k.v, a->k.offsets, b, g, of_keys, D, S);
  ahead_of(list, &a->v.v, a->v.offsets, b, g, of_keys, D, S);
  if (tangent) {
    ahead_of(list, &a->q.t, a->q.offsets, b, h, heads, D, T);
    ahead_of(list, &a->k.t, a->k.offsets, b, g, of_keys, D, S);
    ahead_of(list, &a->v.t, a->v.offsets, b, g, of_keys, D, S);
  }
  if (value) ahead_of(list, &a->out.v, a->out.offsets, b, h, heads, D, T);
  if (tangent) ahead_of(list, &a->out.t, a->out.offsets, b, h, heads, D, T);
}

/* the tasks of one unit in order */
INLINE void walk_tasks(const mica_attention_args *a, int64_t first, int64_t end, int64_t h, int64_t n0, down_fn fn,
                       plan_memo *memo, ahead_list *ahead, float *scratch) {
  for (int64_t b = first; b < end; b++) {
    int64_t T = micak_rows(a->q.offsets, b, a->T), n1 = blocks_of(T);
    if (n0 < n1) fn(a, b, h, n0, at_most(n1, n0 + ATTENTION_TILE), T, memo, ahead, scratch);
  }
}
INLINE mica_status walk_down(const mica_exec *exec, const mica_attention_args *a, const int value, const int tangent,
                             int64_t first, int64_t count) {
  int64_t tiles_each = (blocks_of(a->T) + ATTENTION_TILE - 1) / ATTENTION_TILE, last = first + count;
  int sums = (value && attention_sums(a, MICA_FORWARD)) || (tangent && attention_sums(a, MICA_JVP));
  plan_memo memo;
  ahead_list ahead;
  memset(memo.known, 0, sizeof memo.known);
  ahead.count = ahead.k = 0;
  for (int64_t u = first; u < last; u++) {
    int64_t n0 = u % tiles_each * ATTENTION_TILE, h = u / tiles_each % a->H, b = u / tiles_each / a->H;
    if (tiles_each == 1 && !sums) look_ahead(&ahead, a, value, tangent, u, last, u == first);
    if (!sums) {
      walk_tasks(a, b, b + 1, h, n0, value && tangent ? down_both : value ? down_value : down_tangent, &memo, &ahead,
                 exec->scratch);
      continue;
    }
    /* tangents read lse as all tasks leave it */
    if (value) walk_tasks(a, 0, a->B, h, n0, down_value, &memo, &ahead, exec->scratch);
    if (tangent) walk_tasks(a, 0, a->B, h, n0, down_tangent, &memo, &ahead, exec->scratch);
  }
  return MICA_OK;
}
CPU_KERNEL(attention_forward) { return walk_down(exec, args, 1, 0, first, count); }
CPU_KERNEL(attention_jvp) { return walk_down(exec, args, 0, 1, first, count); }
CPU_KERNEL(attention_forward_jvp) { return walk_down(exec, args, 1, 1, first, count); }
