/* attention on the CPU, the faces that walk up: backward and backward_jvp. a unit is (task, key head): it owns the
 * rows of k and v that it sums into, and runs the query heads of that key head in order. keys in blocks of 256 (128),
 * queries in blocks of 48 rows */
#include "attention/attention_plan_internal.h"

/* all that one unit needs; pointers into scratch. _t: tangents. the scores are those of scale q */
typedef struct up_unit {
  const mica_attention_args *a;
  int64_t b, g, h0, h1, T, S, D, Dp;
  int64_t block;                             /* keys of a block */
  int     second, one_block;                 /* backward_jvp; all keys in one block */
  double *sums;                              /* of each query head: of slopes */
  float  *K, *V, *dK, *dV, *Q, *QT, *dO, *dOT, *dQ, *held, *P, *dS, *lse, *delta;
  float  *K_t, *V_t, *Q_t, *QT_t, *dO_t, *dOT_t, *P_t, *dS_t, *lse_t, *delta_t, *dQ0, *held0;
  int     k_moves, v_moves, q_moves;
  int     scale_moves;                       /* or its own cotangent is wanted: dQ0 is needed */
  ahead_list ahead;                          /* the next unit's first query head */
  plan_memo *memo;
} up_unit;

static up_unit open_unit(const mica_attention_args *a, int64_t b, int64_t g, float *scratch, int second) {
  up_unit u = { .a = a, .b = b, .g = g, .T = micak_rows(a->q.offsets, b, a->T), .S = micak_rows(a->k.offsets, b, a->S),
                .D = a->D, .Dp = round_up(a->D, VW), .second = second,
                .block = second ? ATTENTION_KEYS_JVP : ATTENTION_KEYS };
  attention_query_heads(a, g, &u.h0, &u.h1);
  u.one_block = u.S <= u.block;
  int64_t keys = at_most(u.S, u.block), side = keys * u.Dp, rows = LANES * u.Dp, cells = keys * LANES;
  int64_t held = u.one_block ? 0 : (u.h1 - u.h0) * u.T * u.Dp;
  u.sums = (double *)(void *)take(&scratch, 2 * (u.h1 - u.h0));
  u.K = take(&scratch, side), u.V = take(&scratch, side), u.dK = take(&scratch, side), u.dV = take(&scratch, side);
  u.Q = take(&scratch, rows), u.QT = take(&scratch, rows), u.dO = take(&scratch, rows), u.dOT = take(&scratch, rows);
  u.dQ = take(&scratch, rows), u.held = take(&scratch, held), u.P = take(&scratch, cells), u.dS = take(&scratch, cells);
  u.lse = take(&scratch, LANES), u.delta = take(&scratch, LANES);
  if (!second) return u;
  u.K_t = take(&scratch, side), u.V_t = take(&scratch, side);
  u.Q_t = take(&scratch, rows), u.QT_t = take(&scratch, rows), u.dO_t = take(&scratch, rows);
  u.dOT_t = take(&scratch, rows), u.P_t = take(&scratch, cells), u.dS_t = take(&scratch, cells);
  u.lse_t = take(&scratch, LANES), u.delta_t = take(&scratch, LANES);
  u.dQ0 = take(&scratch, rows), u.held0 = take(&scratch, held);
  u.k_moves = a->k.t.data != NULL, u.v_moves = a->v.t.data != NULL;
  u.scale_moves = a->scale.t.data || a->scale.td.data, u.q_moves = a->q.t.data || a->scale.t.data;
  return u;
}

/* += <x_i, y_i> of one head, packed rows against rows of a wire, into the lanes */
static inline void dot_block(const block_plan *p, const float *x, const head_view *y, int64_t D, int64_t Dp,
                             float *sum, int add) {
  for (int64_t l = p->first * VW; l < LANES; l++) {
    float dot = 0;
    if (l >= p->start && y->at) {
      const float *at = y->at + (p->i0 + l) * y->row, *row = x + l * Dp;
      if (y->col == 1) {
        vf s = v_zero();
        for (int64_t d = 0; d < D; d += VW) s = v_fma(v_load(row + d), micak_ld(at + d, at_most(D - d, VW)), s);
        dot = v_sum(s);
      } else {
        for (int64_t d = 0; d < D; d++) dot += row[d] * at[d * y->col];
      }
    }
    sum[l] = add ? sum[l] + dot : dot;
  }
}

/* scores P to p = e^(s - lse), dp in dS to ds = p (dp - delta) */
static inline void backward_strip(const block_plan *p, const up_unit *u, int s) {
  vf minus = v_load(u->lse + s * VW), delta = v_load(u->delta + s * VW);
  float *P = u->P + s * VW, *dS = u->dS + s * VW;
  EACH_KEY(p, s, j) {
    vf e = exp_to_zero(v_load(P + j * LANES) - minus);
    v_store(P + j * LANES, e);
    v_store(dS + j * LANES, e * (v_load(dS + j * LANES) - delta));
  }
}
/* the same with tangents: s_t in P_t to p_t = p (s_t - lse_t), dp_t in dS_t to ds_t = p_t (dp - delta) + p (dp_t - delta_t) */
static inline void backward_jvp_strip(const block_plan *p, const up_unit *u, int s) {
  vf minus = v_load(u->lse + s * VW), delta = v_load(u->delta + s * VW);
  vf lse_t = v_load(u->lse_t + s * VW), delta_t = v_load(u->delta_t + s * VW);
  float *P = u->P + s * VW, *dS = u->dS + s * VW, *P_t = u->P_t + s * VW, *dS_t = u->dS_t + s * VW;
  EACH_KEY(p, s, j) {
    vf e = exp_to_zero(v_load(P + j * LANES) - minus), e_t = e * (v_load(P_t + j * LANES) - lse_t);
    vf x = v_load(dS + j * LANES) - delta, x_t = v_load(dS_t + j * LANES) - delta_t;
    v_store(P + j * LANES, e), v_store(P_t + j * LANES, e_t);
    v_store(dS + j * LANES, e * x), v_store(dS_t + j * LANES, v_fma(e_t, x, e * x_t));
  }
}

typedef struct head_out {
  head_view q, bias;
  float     scale, scale_t;
} head_out;

/* block n of the rows of head h against the keys of plan p. what it finds for the keys is added to dK and dV, for the
 * queries (of scale q) it is left in dQ, and in dQ0 without tangents where the scale asks for it */
INLINE void up_block(up_unit *u, const block_plan *p, int64_t h, const head_out *to, const int second) {
  const mica_attention_args *a = u->a;
  const int64_t b = u->b, D = u->D, Dp = u->Dp, keys = p->j1 - p->j0;
  const head_view q = head_of(&a->q.v, a->q.offsets, b, h), q_t = head_of(&a->q.t, a->q.offsets, b, h);
  const head_view dout = head_of(&a->out.d, a->out.offsets, b, h), dout_t = head_of(&a->out.td, a->out.offsets, b, h);
  const head_view out = head_of(&a->out.v, a->out.offsets, b, h), out_t = head_of(&a->out.t, a->out.offsets, b, h);
  const head_view lse = head_of(&a->lse.v, a->lse.offsets, b, h), lse_t = head_of(&a->lse.t, a->lse.offsets, b, h);
  const head_view bias = bias_view(&a->bias.v, b, h), bias_t = bias_view(&a->bias.t, b, h);
  const float slope = head_cell(&a->slopes.v, b, h), slope_t = head_cell(&a->slopes.t, b, h);
  pack_block(&q, p, D, Dp, to->scale, u->Q);
  transpose_block(u->Q, p->first, Dp, u->QT);
  pack_block(&dout, p, D, Dp, 1, u->dO);
  transpose_block(u->dO, p->first, Dp, u->dOT);
  scores(p, D, u->K, Dp, u->QT, u->P, 0);
  scores(p, D, u->V, Dp, u->dOT, u->dS, 0);
  lanes_in(&lse, p, INFINITY, u->lse);
  dot_block(p, u->dO, &out, D, Dp, u->delta, 0);
  if (has_terms(a)) add_terms(p, &bias, slope, 1, u->P);
  hide(p, u->P);
  if (second) {
    pack_block(&dout_t, p, D, Dp, 1, u->dO_t);
    transpose_block(u->dO_t, p->first, Dp, u->dOT_t);
    scores(p, D, u->V, Dp, u->dOT_t, u->dS_t, 0);
    if (u->v_moves) scores(p, D, u->V_t, Dp, u->dOT, u->dS_t, 1);
    if (u->q_moves) {
      pack_block(&q_t, p, D, Dp, to->scale, u->Q_t);
      if (to->scale_t != 0) add_block(&q, p, D, Dp, to->scale_t, u->Q_t);
      transpose_block(u->Q_t, p->first, Dp, u->QT_t);
      scores(p, D, u->K, Dp, u->QT_t, u->P_t, 0);
    } else {
      memset(u->P_t, 0, (size_t)(keys * LANES) * sizeof *u->P_t);
    }
    if (u->k_moves) scores(p, D, u->K_t, Dp, u->QT, u->P_t, 1);
    if (bias_t.at || slope_t != 0) add_terms(p, &bias_t, slope_t, 0, u->P_t);
    lanes_in(&lse_t, p, 0, u->lse_t);
    dot_block(p, u->dO_t, &out, D, Dp, u->delta_t, 0);
    dot_block(p, u->dO, &out_t, D, Dp, u->delta_t, 1);
  }
  for (int s = p->first; s < STRIPS; s++) {
    if (second) backward_jvp_strip(p, u, s);
    else backward_strip(p, u, s);
  }
  const float *ds = second ? u->dS_t : u->dS;
  bias_cotangent(p, ds, &to->bias);
  if ((second ? a->slopes.td : a->slopes.d).data) u->sums[h - u->h0] += slope_cotangent(p, ds);
  if ((second ? a->v.td : a->v.d).data) gather(p, Dp, second ? u->P_t : u->P, u->dO, u->dV);
  if (second && a->v.td.data) gather(p, Dp, u->P, u->dO_t, u->dV);
  if ((second ? a->k.td : a->k.d).data) gather(p, Dp, ds, u->Q, u->dK);
  if (second && a->k.td.data && u->q_moves) gather(p, Dp, u->dS, u->Q_t, u->dK);
  apply(p, Dp, ds, u->K, u->dQ, 0);
  if (second && u->k_moves) apply(p, Dp, u->dS, u->K_t, u->dQ, 1);
  if (second && u->scale_moves) apply(p, Dp, u->dS, u->K, u->dQ0, 0);
}

/* sums over blocks of keys of what up_block leaves for the rows of one head, (T, Dp) */
static void hold(const up_unit *u, const block_plan *p, float *held, float *rows, int first) {
  for (int64_t l = p->start; l < LANES; l++) {
    float *sum = held + (p->i0 + l) * u->Dp, *row = rows + l * u->Dp;
    for (int64_t d = 0; d < u->Dp; d += VW) {
      vf x = first ? v_load(row + d) : v_load(sum + d) + v_load(row + d);
      v_store(sum + d, x);
      v_store(row + d, x);
    }
  }
}

/* sum over the rows of a block of <x_i, y_i> in double */
static double lanes_dot(const up_unit *u, const block_plan *p, const float *x, const head_view *y) {
  float dot[LANES];
  double sum = 0;
  dot_block(p, x, y, u->D, u->Dp, dot, 0);
  for (int l = p->start; l < LANES; l++) sum += (double)dot[l];
  return sum;
}

/* one head against one block of keys; on the last block its cotangents go out. returns that of the scale */
static double up_head(up_unit *u, int64_t h, int64_t j, int64_t n) {
  const mica_attention_args *a = u->a;
  const int second = u->second, first = j == 0, last = j + n >= u->S;
  const head_out to = { .q = head_of(second ? &a->q.td : &a->q.d, a->q.offsets, u->b, h),
                        .bias = bias_view(second ? &a->bias.td : &a->bias.d, u->b, h),
                        .scale = head_scale(a, u->b, h), .scale_t = head_cell(&a->scale.t, u->b, h) };
  const head_view q = head_of(&a->q.v, a->q.offsets, u->b, h), q_t = head_of(&a->q.t, a->q.offsets, u->b, h);
  double scale_sum = 0;
  int64_t held = (h - u->h0) * u->T * u->Dp;
  if (first) {
    u->sums[h - u->h0] = 0;
    clear_bias(a, &to.bias);
  }
  for (int64_t i = 0; i < blocks_of(u->T); i++) {
    const block_plan *p = plan_of(u->memo, a, u->b, i, u->T, u->S, j, j + n, &u->ahead);
    if (second) up_block(u, p, h, &to, 1);
    else up_block(u, p, h, &to, 0);
    if (!u->one_block) {
      hold(u, p, u->held + held, u->dQ, first);
      if (second && u->scale_moves) hold(u, p, u->held0 + held, u->dQ0, first);
    }
    if (!last) continue;
    if (second ? a->scale.td.data : a->scale.d.data) {
      scale_sum += lanes_dot(u, p, u->dQ, &q);
      if (second && u->scale_moves) scale_sum += lanes_dot(u, p, u->dQ0, &q_t);
    }
    unpack_block(&to.q, p, u->D, u->Dp, u->dQ, NULL, to.scale);
    if (second && to.scale_t != 0) {
      head_view more = to.q;
      more.add = 1;
      unpack_block(&more, p, u->D, u->Dp, u->dQ0, NULL, to.scale_t);
    }
  }
  return scale_sum;
}

static void head_sum(const mica_wire *w, int64_t b, int64_t h, double sum) {
  head_view out = { (float *)micak_task(w, NULL, b), w->stride[0], 0, (w->flags & MICA_ADD) || micak_same_slot(w, NULL, b) };
  if (!out.at) return;
  float *at = out.at + h * out.row;
  *at = out.add ? *at + (float)sum : (float)sum;
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
  ahead_of(list, &a->out.t, a->out.offsets, b, h, T);
  ahead_of(list, &a->out.td, a->out.offsets, b, h, T);
}

static void up(const mica_attention_args *a, int64_t b, int64_t g, plan_memo *memo, float *scratch, int second) {
  up_unit u = open_unit(a, b, g, scratch, second);
  u.memo = memo;
  u.ahead.bytes = u.D * (int64_t)sizeof(float);
  const head_view k = head_of(&a->k.v, a->k.offsets, b, g), v = head_of(&a->v.v, a->v.offsets, b, g);
  const head_view k_t = head_of(&a->k.t, a->k.offsets, b, g), v_t = head_of(&a->v.t, a->v.offsets, b, g);
  const head_view k_out = head_of(second ? &a->k.td : &a->k.d, a->k.offsets, b, g);
  const head_view v_out = head_of(second ? &a->v.td : &a->v.d, a->v.offsets, b, g);
  if (u.one_block && !attention_sums(a, second ? MICA_BACKWARD_JVP : MICA_BACKWARD) && b * a->G + g + 1 < a->B * a->G)
    look_ahead(&u.ahead, a, (b * a->G + g + 1) / a->G, (g + 1) % a->G, second);
  for (int64_t j = 0; j == 0 || j < u.S; j += u.block) {
    int64_t n = at_most(u.S - j, u.block);
    pack(&k, j, n, u.D, u.Dp, 1, u.K);
    pack(&v, j, n, u.D, u.Dp, 1, u.V);
    if (u.k_moves) pack(&k_t, j, n, u.D, u.Dp, 1, u.K_t);
    if (u.v_moves) pack(&v_t, j, n, u.D, u.Dp, 1, u.V_t);
    memset(u.dK, 0, (size_t)(n * u.Dp) * sizeof(float));
    memset(u.dV, 0, (size_t)(n * u.Dp) * sizeof(float));
    for (int64_t h = u.h0; h < u.h1; h++) {
      double scale_sum = up_head(&u, h, j, n);
      if (j + n < u.S) continue;
      head_sum(second ? &a->scale.td : &a->scale.d, b, h, scale_sum);
      head_sum(second ? &a->slopes.td : &a->slopes.d, b, h, u.sums[h - u.h0]);
    }
    unpack(&k_out, j, n, u.D, u.Dp, u.dK, NULL, 1);
    unpack(&v_out, j, n, u.D, u.Dp, u.dV, NULL, 1);
  }
}

static mica_status walk_up(const mica_exec *exec, const mica_attention_args *a, int second, int64_t first,
                           int64_t count) {
  int sums = attention_sums(a, second ? MICA_BACKWARD_JVP : MICA_BACKWARD);
  plan_memo memo;
  memset(memo.known, 0, sizeof memo.known);
  for (int64_t u = first; u < first + count; u++) {
    int64_t g = u % a->G, b = u / a->G;
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++) up(a, task, g, &memo, exec->scratch, second);
  }
  return MICA_OK;
}
CPU_KERNEL(attention_backward) { return walk_up(exec, args, 0, first, count); }
CPU_KERNEL(attention_backward_jvp) { return walk_up(exec, args, 1, first, count); }
