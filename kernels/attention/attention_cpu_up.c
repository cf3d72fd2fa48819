/* attention on the CPU, the faces that walk up: backward and backward_jvp. a unit is (task, key head): it owns the
 * rows of k and v that it sums into, and runs the query heads of that key head in order. keys in blocks of 256 (128),
 * queries in blocks of 48 rows */
#include "attention/attention_tile_internal.h"

/* all that one unit needs; pointers into scratch. _t: tangents */
typedef struct up_unit {
  const mica_attention_args *a;
  int64_t b, g, h0, h1, T, S, D, Dp;
  int64_t block;                             /* keys of a block */
  int64_t ld;                                /* row stride of scores */
  int64_t held;                              /* rows of q cotangents kept for each query head */
  double *scale_sum;                         /* of each query head */
  float  *K, *Kt, *Vt, *dK, *dV, *Q, *dO, *dQ, *P, *dS;
  float  *K_t, *Kt_t, *Vt_t, *Q_t, *dO_t, *P_t, *dS_t;
  int     k_moves, v_moves, q_moves;
  ahead_list ahead;                          /* the next unit's first query head */
} up_unit;

static up_unit open_unit(const mica_attention_args *a, int64_t b, int64_t g, float *scratch, int second) {
  up_unit u = { .a = a, .b = b, .g = g, .T = micak_rows(a->q.offsets, b, a->T), .S = micak_rows(a->k.offsets, b, a->S),
                .D = a->D, .Dp = round_up(a->D, VW), .block = second ? ATTENTION_KEYS_JVP : ATTENTION_KEYS };
  attention_query_heads(a, g, &u.h0, &u.h1);
  int64_t keys = at_most(u.S, u.block), side = keys * u.Dp, rows = ATTENTION_ROWS * u.Dp;
  u.ld = score_stride(keys);
  u.held = u.S <= u.block ? ATTENTION_ROWS : u.T;
  int64_t held = (u.S <= u.block ? 1 : u.h1 - u.h0) * u.held * u.Dp, scores = ATTENTION_ROWS * u.ld;
  u.scale_sum = (double *)(void *)take(&scratch, 2 * (u.h1 - u.h0));
  u.K = take(&scratch, side), u.Kt = take(&scratch, u.Dp * u.ld), u.Vt = take(&scratch, u.Dp * u.ld);
  u.dK = take(&scratch, side), u.dV = take(&scratch, side);
  u.Q = take(&scratch, rows + VW * u.Dp), u.dO = take(&scratch, rows), u.dQ = take(&scratch, held);
  u.P = take(&scratch, scores), u.dS = take(&scratch, scores);
  if (!second) return u;
  u.K_t = take(&scratch, side), u.Kt_t = take(&scratch, u.Dp * u.ld), u.Vt_t = take(&scratch, u.Dp * u.ld);
  u.Q_t = take(&scratch, rows), u.dO_t = take(&scratch, rows);
  u.P_t = take(&scratch, scores), u.dS_t = take(&scratch, scores);
  u.k_moves = a->k.t.data != NULL, u.v_moves = a->v.t.data != NULL, u.q_moves = a->q.t.data != NULL;
  return u;
}

static head_view query_view(const up_unit *u, const mica_port *port, const mica_wire *wire, int64_t h) {
  return head_of(wire, port->offsets, u->b, h);
}
/* <x_i, y_i> over one head */
static inline float head_dot(const head_view *x, const head_view *y, int64_t i, int64_t D) {
  if (!x->at || !y->at) return 0;
  const float *p = x->at + i * x->row, *q = y->at + i * y->row;
  vf sum = v_zero();
  if (x->col == 1 && y->col == 1) {
    for (int64_t d = 0; d < D; d += VW) {
      int64_t n = at_most(D - d, VW);
      sum = v_fma(micak_ld(p + d, n), micak_ld(q + d, n), sum);
    }
    return v_sum(sum);
  }
  float s = 0;
  for (int64_t d = 0; d < D; d++) s += p[d * x->col] * q[d * y->col];
  return s;
}

/* one row of a block: what it takes from outside */
typedef struct row_terms {
  int64_t n, defined;                        /* keys seen; columns to define */
  float   scale, lse, delta, scale_t, lse_t, delta_t;
} row_terms;

/* raw scores s -> p = e^(scale s - lse), dp -> scale ds with ds = p (dp - delta), zero from n to `defined`; returns
 * the sum of ds s where it is wanted */
INLINE float backward_row(float *s, float *dp, const row_terms *t, const int sum_wanted) {
  const int64_t n = t->n;
  vf scale = v_set1(t->scale), minus = v_set1(-t->lse), delta = v_set1(t->delta), sum = v_zero();
  int64_t j = 0;
  for (; j + VW <= n; j += VW) {
    vf raw = v_load(s + j), p = v_exp_low(v_fma(raw, scale, minus)), ds = p * (v_load(dp + j) - delta);
    if (sum_wanted) sum = v_fma(ds, raw, sum);
    v_store(dp + j, ds * scale);
    v_store(s + j, p);
  }
  if (j < n) {
    vf raw = v_load(s + j), p = micak_first(v_exp_low(v_fma(raw, scale, minus)), v_zero(), n - j);
    vf ds = micak_first(p * (v_load(dp + j) - delta), v_zero(), n - j);
    if (sum_wanted) sum = v_fma(ds, raw, sum);
    v_store(dp + j, ds * scale);
    v_store(s + j, p);
    j += VW;
  }
  for (; j < t->defined; j += VW) v_store(s + j, v_zero()), v_store(dp + j, v_zero());
  return sum_wanted ? v_sum(sum) : 0;
}
/* the same with tangents: s_t -> p_t = p (x_t - lse_t), x_t = scale s_t + scale_t s; dp_t -> scale ds_t + scale_t ds,
 * ds_t = p_t (dp - delta) + p (dp_t - delta_t); returns the sum of ds_t s + ds s_t */
static inline float backward_jvp_row(float *s, float *dp, float *s_t, float *dp_t, const row_terms *t) {
  vf scale = v_set1(t->scale), scale_t = v_set1(t->scale_t), minus = v_set1(-t->lse), sum = v_zero();
  for (int64_t j = 0; j < t->defined; j += VW) {
    int64_t m = t->n - j < 0 ? 0 : at_most(t->n - j, VW);
    vf p = v_zero(), p_t = v_zero(), ds = v_zero(), ds_t = v_zero();
    if (m > 0) {
      vf raw = v_load(s + j), raw_t = v_load(s_t + j), e = v_load(dp + j) - t->delta;
      vf x_t = v_fma(raw_t, scale, raw * scale_t) - t->lse_t;
      p = v_exp_low(v_fma(raw, scale, minus));
      if (m < VW) {
        p = micak_first(p, v_zero(), m), raw = micak_first(raw, v_zero(), m), raw_t = micak_first(raw_t, v_zero(), m);
        x_t = micak_first(x_t, v_zero(), m), e = micak_first(e, v_zero(), m);
      }
      p_t = p * x_t;
      ds = p * e;
      vf e_t = v_load(dp_t + j) - t->delta_t;
      ds_t = v_fma(p_t, e, p * (m < VW ? micak_first(e_t, v_zero(), m) : e_t));
      sum = v_fma(ds_t, raw, v_fma(ds, raw_t, sum));
    }
    v_store(s + j, p), v_store(dp + j, ds * scale), v_store(s_t + j, p_t);
    v_store(dp_t + j, v_fma(ds_t, scale, ds * scale_t));
  }
  return v_sum(sum);
}

/* rows [i, i + M) of head h against the keys [j, j + n); dQ: cotangents of the queries, (M, Dp) */
static void backward_block(const up_unit *u, int64_t h, int64_t i, int64_t M, int64_t j, int64_t n, float *dQ, int add,
                           double *scale_d) {
  const mica_attention_args *a = u->a;
  const int64_t Dp = u->Dp, ld = u->ld;
  strip_plan plan;
  plan_strips(&plan, a, i, M, j, n, u->T, u->S, ld);
  head_view q = query_view(u, &a->q, &a->q.v, h), dout = query_view(u, &a->out, &a->out.d, h);
  head_view out = query_view(u, &a->out, &a->out.v, h), lse = head_of(&a->lse.v, a->lse.offsets, u->b, h);
  if (plan.most > 0) {
    pack(&q, i, M, u->D, Dp, u->Q);
    pack(&dout, i, M, u->D, Dp, u->dO);
    mm_scores(M, plan.most, Dp, u->Q, Dp, u->Kt, ld, u->P, ld, plan.cols, 0);
    mm_scores(M, plan.most, Dp, u->dO, Dp, u->Vt, ld, u->dS, ld, plan.cols, 0);
    row_terms t = { .scale = head_scale(a, u->b, h) };
    for (int64_t m = 0; m < M; m++) {
      ahead_row(&u->ahead, i + m, u->D);
      t.n = plan.visible[m], t.defined = plan.defined[m / ATTENTION_STRIP], t.lse = cell_in(&lse, i + m);
      t.delta = head_dot(&dout, &out, i + m, u->D);
      if (a->scale.d.data) *scale_d += (double)backward_row(u->P + m * ld, u->dS + m * ld, &t, 1);
      else backward_row(u->P + m * ld, u->dS + m * ld, &t, 0);
    }
    if (a->v.d.data) mm_gather(n, Dp, M, u->P, ld, u->dO, Dp, u->dV, Dp, plan.visible);
    if (a->k.d.data) mm_gather(n, Dp, M, u->dS, ld, u->Q, Dp, u->dK, Dp, plan.visible);
  }
  if (a->q.d.data) mm_apply(M, Dp, u->dS, ld, u->K, Dp, dQ, Dp, plan.seen, add);
}

static void backward_jvp_block(const up_unit *u, int64_t h, int64_t i, int64_t M, int64_t j, int64_t n, float *dQ,
                               int add, double *scale_td) {
  const mica_attention_args *a = u->a;
  const int64_t Dp = u->Dp, ld = u->ld;
  strip_plan plan;
  plan_strips(&plan, a, i, M, j, n, u->T, u->S, ld);
  head_view q = query_view(u, &a->q, &a->q.v, h), q_t = query_view(u, &a->q, &a->q.t, h);
  head_view dout = query_view(u, &a->out, &a->out.d, h), dout_t = query_view(u, &a->out, &a->out.td, h);
  head_view out = query_view(u, &a->out, &a->out.v, h), out_t = query_view(u, &a->out, &a->out.t, h);
  head_view lse = head_of(&a->lse.v, a->lse.offsets, u->b, h), lse_t = head_of(&a->lse.t, a->lse.offsets, u->b, h);
  if (plan.most > 0) {
    pack(&q, i, M, u->D, Dp, u->Q);
    pack(&dout, i, M, u->D, Dp, u->dO);
    pack(&dout_t, i, M, u->D, Dp, u->dO_t);
    mm_scores(M, plan.most, Dp, u->Q, Dp, u->Kt, ld, u->P, ld, plan.cols, 0);
    mm_scores(M, plan.most, Dp, u->dO, Dp, u->Vt, ld, u->dS, ld, plan.cols, 0);
    mm_scores(M, plan.most, Dp, u->dO_t, Dp, u->Vt, ld, u->dS_t, ld, plan.cols, 0);
    if (u->v_moves) mm_scores(M, plan.most, Dp, u->dO, Dp, u->Vt_t, ld, u->dS_t, ld, plan.cols, 1);
    if (u->q_moves) {
      pack(&q_t, i, M, u->D, Dp, u->Q_t);
      mm_scores(M, plan.most, Dp, u->Q_t, Dp, u->Kt, ld, u->P_t, ld, plan.cols, 0);
    } else {
      memset(u->P_t, 0, (size_t)(M * ld) * sizeof *u->P_t);
    }
    if (u->k_moves) mm_scores(M, plan.most, Dp, u->Q, Dp, u->Kt_t, ld, u->P_t, ld, plan.cols, 1);
    row_terms t = { .scale = head_scale(a, u->b, h), .scale_t = head_scale_t(a, u->b, h) };
    for (int64_t m = 0; m < M; m++) {
      ahead_row(&u->ahead, i + m, u->D);
      t.n = plan.visible[m], t.defined = plan.defined[m / ATTENTION_STRIP];
      t.lse = cell_in(&lse, i + m), t.lse_t = cell_in(&lse_t, i + m);
      t.delta = head_dot(&dout, &out, i + m, u->D);
      t.delta_t = head_dot(&dout_t, &out, i + m, u->D) + head_dot(&dout, &out_t, i + m, u->D);
      *scale_td += (double)backward_jvp_row(u->P + m * ld, u->dS + m * ld, u->P_t + m * ld, u->dS_t + m * ld, &t);
    }
    if (a->v.td.data) {
      mm_gather(n, Dp, M, u->P_t, ld, u->dO, Dp, u->dV, Dp, plan.visible);
      mm_gather(n, Dp, M, u->P, ld, u->dO_t, Dp, u->dV, Dp, plan.visible);
    }
    if (a->k.td.data) {
      mm_gather(n, Dp, M, u->dS_t, ld, u->Q, Dp, u->dK, Dp, plan.visible);
      if (u->q_moves) mm_gather(n, Dp, M, u->dS, ld, u->Q_t, Dp, u->dK, Dp, plan.visible);
    }
  }
  if (a->q.td.data) {
    mm_apply(M, Dp, u->dS_t, ld, u->K, Dp, dQ, Dp, plan.seen, add);
    if (u->k_moves) mm_apply(M, Dp, u->dS, ld, u->K_t, Dp, dQ, Dp, plan.seen, 1);
  }
}

/* what unit (task, key head) will pack first, and the rows that it will write */
static void look_ahead(ahead_list *list, const mica_attention_args *a, int64_t b, int64_t g, int second) {
  int64_t T = micak_rows(a->q.offsets, b, a->T), S = micak_rows(a->k.offsets, b, a->S), h, end;
  attention_query_heads(a, g, &h, &end);
  if (h == end) return;
  ahead_of(list, &a->k.v, a->k.offsets, b, g, S);
  ahead_of(list, &a->v.v, a->v.offsets, b, g, S);
  ahead_of(list, &a->q.v, a->q.offsets, b, h, T);
  ahead_of(list, &a->out.v, a->out.offsets, b, h, T);
  ahead_of(list, &a->out.d, a->out.offsets, b, h, T);
  ahead_of(list, second ? &a->q.td : &a->q.d, a->q.offsets, b, h, T);
  ahead_of(list, second ? &a->k.td : &a->k.d, a->k.offsets, b, g, S);
  ahead_of(list, second ? &a->v.td : &a->v.d, a->v.offsets, b, g, S);
  if (!second) return;
  ahead_of(list, &a->q.t, a->q.offsets, b, h, T);
  ahead_of(list, &a->k.t, a->k.offsets, b, g, S);
  ahead_of(list, &a->v.t, a->v.offsets, b, g, S);
  ahead_of(list, &a->out.td, a->out.offsets, b, h, T);
}

static void up(const mica_attention_args *a, int64_t b, int64_t g, float *scratch, int second) {
  up_unit u = open_unit(a, b, g, scratch, second);
  head_view k = head_of(&a->k.v, a->k.offsets, b, g), v = head_of(&a->v.v, a->v.offsets, b, g);
  head_view k_t = head_of(&a->k.t, a->k.offsets, b, g), v_t = head_of(&a->v.t, a->v.offsets, b, g);
  head_view k_out = head_of(second ? &a->k.td : &a->k.d, a->k.offsets, b, g);
  head_view v_out = head_of(second ? &a->v.td : &a->v.d, a->v.offsets, b, g);
  const mica_wire *scale_wire = second ? &a->scale.td : &a->scale.d;
  int one_block = u.S <= u.block;
  if (one_block && !attention_sums(a, second ? MICA_BACKWARD_JVP : MICA_BACKWARD) && b * a->G + g + 1 < a->B * a->G)
    look_ahead(&u.ahead, a, (b * a->G + g + 1) / a->G, (g + 1) % a->G, second);
  /* with several blocks of keys the q cotangents of all rows are summed in scratch */
  for (int64_t j = 0; j == 0 || j < u.S; j += u.block) {
    int64_t n = at_most(u.S - j, u.block);
    pack(&k, j, n, u.D, u.Dp, u.K);
    transpose(u.K, n, u.Dp, u.Kt, u.ld);
    pack_transposed(&v, j, n, u.D, u.Dp, u.Q, u.Vt, u.ld);
    if (u.k_moves) {
      pack(&k_t, j, n, u.D, u.Dp, u.K_t);
      transpose(u.K_t, n, u.Dp, u.Kt_t, u.ld);
    }
    if (u.v_moves) pack_transposed(&v_t, j, n, u.D, u.Dp, u.Q, u.Vt_t, u.ld);
    memset(u.dK, 0, (size_t)(n * u.Dp) * sizeof(float));
    memset(u.dV, 0, (size_t)(n * u.Dp) * sizeof(float));
    int last = j + u.block >= u.S;
    for (int64_t h = u.h0; h < u.h1; h++) {
      head_view q_out = head_of(second ? &a->q.td : &a->q.d, a->q.offsets, b, h);
      double *scale_sum = u.scale_sum + (one_block ? 0 : h - u.h0);
      if (j == 0) *scale_sum = 0;
      for (int64_t i = 0; i < u.T; i += ATTENTION_ROWS) {
        int64_t M = at_most(u.T - i, ATTENTION_ROWS);
        float *dQ = u.dQ + (one_block ? 0 : (h - u.h0) * u.held + i) * u.Dp;
        if (second) backward_jvp_block(&u, h, i, M, j, n, dQ, j > 0, scale_sum);
        else backward_block(&u, h, i, M, j, n, dQ, j > 0, scale_sum);
        if (last) unpack(&q_out, i, M, u.D, u.Dp, dQ);
      }
      if (last) {
        head_view out = { (float *)micak_task(scale_wire, NULL, b), scale_wire->stride[0], 0,
                          (scale_wire->flags & MICA_ADD) || micak_same_slot(scale_wire, NULL, b) };
        cell_out(&out, h, (float)*scale_sum);
      }
    }
    unpack(&k_out, j, n, u.D, u.Dp, u.dK);
    unpack(&v_out, j, n, u.D, u.Dp, u.dV);
  }
}

static mica_status walk_up(const mica_exec *exec, const mica_attention_args *a, int second, int64_t first,
                           int64_t count) {
  if (attention_general(a)) return attention_refused();
  int sums = attention_sums(a, second ? MICA_BACKWARD_JVP : MICA_BACKWARD);
  for (int64_t u = first; u < first + count; u++) {
    int64_t g = u % a->G, b = u / a->G;
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++) up(a, task, g, exec->scratch, second);
  }
  return MICA_OK;
}
CPU_KERNEL(attention_backward) { return walk_up(exec, args, 0, first, count); }
CPU_KERNEL(attention_backward_jvp) { return walk_up(exec, args, 1, first, count); }
