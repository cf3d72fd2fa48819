/* attention on the CPU, the faces that walk down: forward and jvp. a unit is (task, query head, tile of query rows) */
#include "attention/attention_tile_internal.h"

/* long sequences take strips of 24 rows, so that a panel of keys is read once for four register tiles */
enum { MOST_ROWS = 32 };                     /* 24 rows in whole vectors */
static inline int64_t strip_rows(int64_t S) { return S > 192 ? 4 * ATTENTION_STRIP : ATTENTION_STRIP; }

/* raw scores of a row to e^(scale s - *top); returns their sum. columns from n to `defined` become 0 */
static inline float softmax_row(float *s, int64_t n, int64_t defined, float scale, float *largest) {
  vf top = v_set1(-INFINITY), factor = v_set1(scale);
  int64_t j = 0;
  for (; j + VW <= n; j += VW) top = v_max(v_load(s + j) * factor, top);
  if (j < n) top = v_max(micak_first(v_load(s + j) * factor, top, n - j), top);
  float m = v_max_lane(top);
  vf minus = v_set1(-m);
  vf sum = v_zero(), sum2 = v_zero();
  for (j = 0; j + 2 * VW <= n; j += 2 * VW) {
    vf e = v_exp_low(v_fma(v_load(s + j), factor, minus)), f = v_exp_low(v_fma(v_load(s + j + VW), factor, minus));
    sum += e;
    sum2 += f;
    v_store(s + j, e);
    v_store(s + j + VW, f);
  }
  for (; j < n; j += VW) {
    vf e = micak_first(v_exp_low(v_fma(v_load(s + j), factor, minus)), v_zero(), at_most(n - j, VW));
    sum += e;
    v_store(s + j, e);
  }
  for (; j < defined; j += VW) v_store(s + j, v_zero());
  *largest = m;
  return v_sum(sum + sum2);
}

static void forward_unit(const mica_attention_args *a, int64_t b, int64_t h, int64_t i0, int64_t i1, int64_t T,
                         const ahead_list *ahead, float *scratch) {
  const int64_t S = micak_rows(a->k.offsets, b, a->S), D = a->D, Dp = round_up(D, VW), ld = score_stride(S);
  const int64_t g = attention_key_head(a, h), step = strip_rows(S);
  head_view q = head_of(&a->q.v, a->q.offsets, b, h), k = head_of(&a->k.v, a->k.offsets, b, g);
  head_view v = head_of(&a->v.v, a->v.offsets, b, g), out = head_of(&a->out.v, a->out.offsets, b, h);
  head_view lse_out = head_of(&a->lse.v, a->lse.offsets, b, h);
  float *Kt = take(&scratch, Dp * ld), *V = take(&scratch, S * Dp), *Q = take(&scratch, VW * Dp + step * Dp);
  float *P = take(&scratch, step * ld), *O = take(&scratch, step * Dp), scale = head_scale(a, b, h);
  int64_t keys = i1 > i0 ? attention_visible(a, i1 - 1, T, S) : 0; /* the last row sees the most */
  pack_transposed(&k, 0, keys, D, Dp, Q, Kt, ld);
  pack(&v, 0, keys, D, Dp, V);
  for (int64_t i = i0; i < i1; i += step) {
    int64_t M = at_most(i1 - i, step);
    strip_plan plan;
    plan_strips(&plan, a, i, M, 0, S, T, S, ld);
    pack(&q, i, M, D, Dp, Q);
    mm_scores(M, plan.most, Dp, Q, Dp, Kt, ld, P, ld, plan.cols, 0);
    float z[MOST_ROWS], top[MOST_ROWS], lse[MOST_ROWS];
    for (int64_t m = 0; m < M; m++) {
      ahead_row(ahead, i + m, D);
      z[m] = softmax_row(P + m * ld, plan.visible[m], plan.defined[m / ATTENTION_STRIP], scale, &top[m]);
    }
    for (int64_t m = M; m < round_up(M, VW); m++) z[m] = 1, top[m] = 0;
    for (int64_t m = 0; m < M; m += VW) v_store(lse + m, v_load(top + m) + v_log(v_load(z + m)));
    mm_apply(M, Dp, P, ld, V, Dp, O, Dp, plan.seen, 0);
    for (int64_t m = 0; m < M; m++) {
      float over = plan.visible[m] ? 1 / z[m] : 0;
      cell_out(&lse_out, i + m, plan.visible[m] ? lse[m] : 0);
      for (int64_t d = 0; d < Dp; d += VW) v_store(O + m * Dp + d, v_load(O + m * Dp + d) * over);
    }
    unpack(&out, i, M, D, Dp, O);
  }
}

/* p = e^(scale s - lse) over s, p (s_t - lse_t) over s_t with s_t = scale s_t + scale_t s;
 * returns lse_t = sum of p s_t */
static inline float tangent_row(float *s, float *s_t, int64_t n, int64_t defined, float scale, float scale_t,
                                float lse) {
  vf sum = v_zero(), factor = v_set1(scale), factor_t = v_set1(scale_t), minus = v_set1(-lse);
  for (int64_t j = 0; j < n; j += VW) {
    vf raw = v_load(s + j), x_t = v_fma(v_load(s_t + j), factor, raw * factor_t);
    vf p = micak_first(v_exp_low(v_fma(raw, factor, minus)), v_zero(), at_most(n - j, VW));
    v_store(s + j, p);
    v_store(s_t + j, x_t);
    sum += micak_first(p * x_t, v_zero(), at_most(n - j, VW));
  }
  float lse_t = v_sum(sum);
  int64_t j = 0;
  for (; j < n; j += VW) {
    vf p_t = v_load(s + j) * (v_load(s_t + j) - lse_t);
    v_store(s_t + j, micak_first(p_t, v_zero(), at_most(n - j, VW)));
  }
  for (; j < defined; j += VW) v_store(s + j, v_zero()), v_store(s_t + j, v_zero());
  return lse_t;
}

static void jvp_unit(const mica_attention_args *a, int64_t b, int64_t h, int64_t i0, int64_t i1, int64_t T,
                     const ahead_list *ahead, float *scratch) {
  const int64_t S = micak_rows(a->k.offsets, b, a->S), D = a->D, Dp = round_up(D, VW), ld = score_stride(S);
  const int64_t g = attention_key_head(a, h), step = strip_rows(S);
  head_view q = head_of(&a->q.v, a->q.offsets, b, h), k = head_of(&a->k.v, a->k.offsets, b, g);
  head_view v = head_of(&a->v.v, a->v.offsets, b, g), out_t = head_of(&a->out.t, a->out.offsets, b, h);
  head_view q_t = head_of(&a->q.t, a->q.offsets, b, h), k_t = head_of(&a->k.t, a->k.offsets, b, g);
  head_view v_t = head_of(&a->v.t, a->v.offsets, b, g), lse_in = head_of(&a->lse.v, a->lse.offsets, b, h);
  head_view lse_out = head_of(&a->lse.t, a->lse.offsets, b, h);
  float *Kt = take(&scratch, Dp * ld), *V = take(&scratch, S * Dp), *Kt_t = take(&scratch, Dp * ld);
  float *V_t = take(&scratch, S * Dp), *Q = take(&scratch, VW * Dp + step * Dp), *Q_t = take(&scratch, step * Dp);
  float *P = take(&scratch, step * ld), *P_t = take(&scratch, step * ld), *O = take(&scratch, step * Dp);
  float scale = head_scale(a, b, h), scale_t = head_scale_t(a, b, h);
  int q_moves = q_t.at != NULL, k_moves = k_t.at != NULL;
  int64_t keys = i1 > i0 ? attention_visible(a, i1 - 1, T, S) : 0;
  pack_transposed(&k, 0, keys, D, Dp, Q, Kt, ld);
  pack(&v, 0, keys, D, Dp, V);
  if (k_moves) pack_transposed(&k_t, 0, keys, D, Dp, Q, Kt_t, ld);
  if (v_t.at) pack(&v_t, 0, keys, D, Dp, V_t);
  for (int64_t i = i0; i < i1; i += step) {
    int64_t M = at_most(i1 - i, step);
    strip_plan plan;
    plan_strips(&plan, a, i, M, 0, S, T, S, ld);
    pack(&q, i, M, D, Dp, Q);
    mm_scores(M, plan.most, Dp, Q, Dp, Kt, ld, P, ld, plan.cols, 0);
    if (q_moves) {
      pack(&q_t, i, M, D, Dp, Q_t);
      mm_scores(M, plan.most, Dp, Q_t, Dp, Kt, ld, P_t, ld, plan.cols, 0);
    } else {
      memset(P_t, 0, (size_t)(M * ld) * sizeof *P_t);
    }
    if (k_moves) mm_scores(M, plan.most, Dp, Q, Dp, Kt_t, ld, P_t, ld, plan.cols, 1);
    for (int64_t m = 0; m < M; m++) {
      ahead_row(ahead, i + m, D);
      float lse_t = tangent_row(P + m * ld, P_t + m * ld, plan.visible[m], plan.defined[m / ATTENTION_STRIP],
                                scale, scale_t, cell_in(&lse_in, i + m));
      cell_out(&lse_out, i + m, lse_t);
    }
    mm_apply(M, Dp, P_t, ld, V, Dp, O, Dp, plan.seen, 0);
    if (v_t.at) mm_apply(M, Dp, P, ld, V_t, Dp, O, Dp, plan.seen, 1);
    unpack(&out_t, i, M, D, Dp, O);
  }
}

typedef void (*down_fn)(const mica_attention_args *a, int64_t b, int64_t h, int64_t i0, int64_t i1, int64_t T,
                        const ahead_list *ahead, float *scratch);
/* what unit (task, head) will pack, and the rows that it will write */
static void look_ahead(ahead_list *list, const mica_attention_args *a, int face, int64_t b, int64_t h) {
  int64_t T = micak_rows(a->q.offsets, b, a->T), S = micak_rows(a->k.offsets, b, a->S), g = attention_key_head(a, h);
  ahead_of(list, &a->q.v, a->q.offsets, b, h, T);
  ahead_of(list, &a->k.v, a->k.offsets, b, g, S);
  ahead_of(list, &a->v.v, a->v.offsets, b, g, S);
  ahead_of(list, face == MICA_JVP ? &a->out.t : &a->out.v, a->out.offsets, b, h, T);
  if (face == MICA_FORWARD) return;
  ahead_of(list, &a->q.t, a->q.offsets, b, h, T);
  ahead_of(list, &a->k.t, a->k.offsets, b, g, S);
  ahead_of(list, &a->v.t, a->v.offsets, b, g, S);
}

static mica_status walk_down(const mica_exec *exec, const mica_attention_args *a, int face, down_fn unit, int64_t first,
                             int64_t count) {
  if (attention_general(a)) return attention_refused();
  int64_t tiles_each = (a->T + ATTENTION_TILE - 1) / ATTENTION_TILE;
  int sums = attention_sums(a, face);
  for (int64_t u = first; u < first + count; u++) {
    int64_t i0 = u % tiles_each * ATTENTION_TILE, h = u / tiles_each % a->H, b = u / tiles_each / a->H;
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++) {
      int64_t T = micak_rows(a->q.offsets, task, a->T), next = task * a->H + h + 1;
      ahead_list ahead = { .count = 0 };
      if (tiles_each == 1 && !sums && next < a->B * a->H) look_ahead(&ahead, a, face, next / a->H, next % a->H);
      if (i0 < T) unit(a, task, h, i0, at_most(T, i0 + ATTENTION_TILE), T, &ahead, exec->scratch);
    }
  }
  return MICA_OK;
}
CPU_KERNEL(attention_forward) { return walk_down(exec, args, MICA_FORWARD, forward_unit, first, count); }
CPU_KERNEL(attention_jvp) { return walk_down(exec, args, MICA_JVP, jvp_unit, first, count); }
