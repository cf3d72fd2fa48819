/* attention on the CPU, the faces that walk up: backward and backward_jvp, alone or both in one walk. a unit is (task,
 * key head): it owns the rows of k and v that it sums into, and runs the query heads of that key head in order. keys in
 * blocks of 128, queries in blocks of 48 rows */
#include "attention/attention_plan_internal.h"

enum { FIRST = 1, SECOND = 2 };              /* which faces: backward, backward_jvp */

/* what a call needs, and the unit it is at; pointers into scratch. _t: tangents. the scores are those of scale q */
typedef struct up_unit {
  const mica_attention_args *a;
  int64_t b, g, h0, h1, T, S, D, Dp;
  int     one_block;                         /* all keys in one block */
  double *sums, *sums_t;                     /* of each query head: of slopes */
  float  *K, *V, *dK, *dV, *Q, *QT, *dO, *dOT, *dQ, *held, *P, *dS, *lse, *delta;
  float  *K_t, *V_t, *dK_t, *dV_t, *Q_t, *QT_t, *dO_t, *dOT_t, *dQ_t, *held_t, *P_t, *dS_t, *lse_t, *delta_t;
  int     k_moves, v_moves, q_moves, dout_moves;
  int     scale_moves;                       /* or its own cotangent is wanted: dQ is needed for the tangents too */
  ahead_list ahead;                          /* of the units to come */
  plan_memo  memo;
} up_unit;

static void up_open(up_unit *u, const mica_attention_args *a, float *scratch, int what) {
  const int64_t Dp = round_up(a->D, VW), keys = at_most(a->S, ATTENTION_KEYS), heads = (a->H + a->G - 1) / a->G;
  const int64_t side = keys * Dp, rows = LANES * Dp, cells = keys * LANES;
  const int64_t held = a->S <= ATTENTION_KEYS ? 0 : heads * a->T * Dp;
  u->a = a, u->D = a->D, u->Dp = Dp;
  memset(u->memo.known, 0, sizeof u->memo.known);
  u->ahead.count = u->ahead.k = 0;
  u->sums = (double *)(void *)take(&scratch, 2 * heads), u->sums_t = (double *)(void *)take(&scratch, 2 * heads);
  u->K = take(&scratch, side), u->V = take(&scratch, side), u->dK = take(&scratch, side), u->dV = take(&scratch, side);
  u->Q = take(&scratch, rows), u->QT = take(&scratch, rows), u->dO = take(&scratch, rows);
  u->dOT = take(&scratch, rows), u->dQ = take(&scratch, rows), u->held = take(&scratch, held);
  u->P = take(&scratch, cells), u->dS = take(&scratch, cells);
  u->lse = take(&scratch, LANES), u->delta = take(&scratch, LANES);
  if (!(what & SECOND)) return;
  u->K_t = take(&scratch, side), u->V_t = take(&scratch, side);
  u->dK_t = take(&scratch, side), u->dV_t = take(&scratch, side);
  u->Q_t = take(&scratch, rows), u->QT_t = take(&scratch, rows), u->dO_t = take(&scratch, rows);
  u->dOT_t = take(&scratch, rows), u->dQ_t = take(&scratch, rows), u->held_t = take(&scratch, held);
  u->P_t = take(&scratch, cells), u->dS_t = take(&scratch, cells);
  u->lse_t = take(&scratch, LANES), u->delta_t = take(&scratch, LANES);
  u->k_moves = a->k.t.data != NULL, u->v_moves = a->v.t.data != NULL, u->dout_moves = a->out.td.data != NULL;
  u->scale_moves = a->scale.t.data || a->scale.td.data, u->q_moves = a->q.t.data || a->scale.t.data;
}

/* += <x_i, y_i> of one head, packed rows against rows of a wire, into the lanes */
OUTLINE void dot_block(const block_plan *p, const float *x, const head_view *y, int64_t D, int64_t Dp,
                             float *sum, int add) {
  for (int64_t l = p->first * VW; l < LANES; l++) {
    float dot = 0;
    if (l >= p->start && y->at) {
      const float *at = y->at + (p->i0 + l) * y->row, *row = x + l * Dp;
      if (y->col == 1) {
        vf s[4] = { v_zero(), v_zero(), v_zero(), v_zero() }; /* short chains: what is lost here, all keys share */
        int64_t d = 0;
        for (; d + 4 * VW <= D; d += 4 * VW)
          UNROLL for (int i = 0; i < 4; i++) s[i] = v_fma(v_load(row + d + i * VW), v_load(at + d + i * VW), s[i]);
        for (int i = 0; d < D; d += VW, i++) s[i] = v_fma(v_load(row + d), micak_ld(at + d, at_most(D - d, VW)), s[i]);
        dot = micak_sum4(s);
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
  head_view q, q_t, bias, bias_t;
  float     scale, scale_t;
} head_out;

/* rows of k or v that block after block adds to: the wire itself where one block alone writes it, else scratch */
typedef struct key_rows {
  head_view out;
  float    *at, *scratch;
  int64_t   row;
} key_rows;
static inline key_rows key_rows_of(const up_unit *u, const mica_port *port, const mica_wire *w, float *scratch) {
  key_rows r = { head_of(w, port->offsets, u->b, u->g), scratch, scratch, u->Dp };
  int alone = u->one_block && u->h1 - u->h0 == 1 && u->T > 0 && blocks_of(u->T) == 1;
  if (alone && r.out.at && r.out.col == 1 && !r.out.add && u->D == u->Dp) r.at = r.out.at, r.row = r.out.row;
  return r;
}
static inline void key_rows_done(const up_unit *u, const key_rows *r, int64_t j, int64_t n) {
  if (r->at == r->scratch) unpack(&r->out, j, n, u->D, u->Dp, r->scratch, NULL, 1);
}
typedef struct keys_out { key_rows k, v, k_t, v_t; } keys_out;

/* rows of a head's gradient over blocks of keys: each goes on from where the block before left it, so that no bit depends
 * on the cut */
static inline void take_up(const up_unit *u, const block_plan *p, const float *held, float *rows) {
  memcpy(rows + p->start * u->Dp, held + (p->i0 + p->start) * u->Dp, (size_t)((LANES - p->start) * u->Dp) * sizeof *rows);
}
static inline void put_down(const up_unit *u, const block_plan *p, float *held, const float *rows) {
  memcpy(held + (p->i0 + p->start) * u->Dp, rows + p->start * u->Dp, (size_t)((LANES - p->start) * u->Dp) * sizeof *rows);
}

/* block of rows of head h against the keys of plan p. what it finds for the keys is added to their rows (`begun`: there is
 * something already), for the queries (of scale q) it is left in dQ and dQ_t (`goes_on`: from an earlier block of keys) */
INLINE void up_block(up_unit *u, const block_plan *p, int64_t h, const head_out *to, const keys_out *keys, int begun,
                     int goes_on, const int what) {
  const mica_attention_args *a = u->a;
  const int64_t b = u->b, D = u->D, Dp = u->Dp, held = (h - u->h0) * u->T * Dp;
  const int first = what & FIRST, second = what & SECOND;
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
    const size_t cells = (size_t)((p->j1 - p->j0) * LANES) * sizeof(float);
    if (u->dout_moves) {
      pack_block(&dout_t, p, D, Dp, 1, u->dO_t);
      transpose_block(u->dO_t, p->first, Dp, u->dOT_t);
      scores(p, D, u->V, Dp, u->dOT_t, u->dS_t, 0);
    }
    if (u->v_moves) scores(p, D, u->V_t, Dp, u->dOT, u->dS_t, u->dout_moves);
    else if (!u->dout_moves) memset(u->dS_t, 0, cells);
    if (u->q_moves) {
      pack_block(&q_t, p, D, Dp, to->scale, u->Q_t);
      if (to->scale_t != 0) add_block(&q, p, D, Dp, to->scale_t, u->Q_t);
      transpose_block(u->Q_t, p->first, Dp, u->QT_t);
      scores(p, D, u->K, Dp, u->QT_t, u->P_t, 0);
    }
    if (u->k_moves) scores(p, D, u->K_t, Dp, u->QT, u->P_t, u->q_moves);
    else if (!u->q_moves) memset(u->P_t, 0, cells);
    if (bias_t.at || slope_t != 0) add_terms(p, &bias_t, slope_t, 0, u->P_t);
    lanes_in(&lse_t, p, 0, u->lse_t);
    dot_block(p, u->dO, &out_t, D, Dp, u->delta_t, 0);
    if (u->dout_moves) dot_block(p, u->dO_t, &out, D, Dp, u->delta_t, 1);
  }
  for (int s = p->first; s < STRIPS; s++) {
    if (second) backward_jvp_strip(p, u, s);
    else backward_strip(p, u, s);
  }
  /* queries first: what is stored drains while the keys' rows are summed */
  if (first || u->scale_moves) {
    if (goes_on) take_up(u, p, u->held + held, u->dQ);
    apply(p, Dp, u->dS, u->K, u->dQ, goes_on);
    if (!u->one_block) put_down(u, p, u->held + held, u->dQ);
  }
  if (second) {
    if (goes_on) take_up(u, p, u->held_t + held, u->dQ_t);
    apply(p, Dp, u->dS_t, u->K, u->dQ_t, goes_on);
    if (u->k_moves) apply(p, Dp, u->dS, u->K_t, u->dQ_t, 1);
    if (!u->one_block) put_down(u, p, u->held_t + held, u->dQ_t);
  }
  if (first) {
    bias_cotangent(p, u->dS, &to->bias);
    if (a->slopes.d.data) u->sums[h - u->h0] += slope_cotangent(p, u->dS);
    if (a->v.d.data) gather(p, Dp, u->P, u->dO, keys->v.at, keys->v.row, begun);
    if (a->k.d.data) gather(p, Dp, u->dS, u->Q, keys->k.at, keys->k.row, begun);
  }
  if (second) {
    bias_cotangent(p, u->dS_t, &to->bias_t);
    if (a->slopes.td.data) u->sums_t[h - u->h0] += slope_cotangent(p, u->dS_t);
    if (a->v.td.data) gather(p, Dp, u->P_t, u->dO, keys->v_t.at, keys->v_t.row, begun);
    if (a->v.td.data && u->dout_moves) gather(p, Dp, u->P, u->dO_t, keys->v_t.at, keys->v_t.row, 1);
    if (a->k.td.data) gather(p, Dp, u->dS_t, u->Q, keys->k_t.at, keys->k_t.row, begun);
    if (a->k.td.data && u->q_moves) gather(p, Dp, u->dS, u->Q_t, keys->k_t.at, keys->k_t.row, 1);
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

/* one head against one block of keys; on the last block its cotangents go out. adds to those of the scale */
INLINE void up_head(up_unit *u, int64_t h, int64_t j, int64_t n, const keys_out *keys, double *scale_sum,
                    double *scale_sum_t, const int what) {
  const mica_attention_args *a = u->a;
  const int first = what & FIRST, second = what & SECOND, goes_on = j > 0, last = j + n >= u->S;
  const head_out to = { .q = head_of(&a->q.d, a->q.offsets, u->b, h), .q_t = head_of(&a->q.td, a->q.offsets, u->b, h),
                        .bias = bias_view(&a->bias.d, u->b, h), .bias_t = bias_view(&a->bias.td, u->b, h),
                        .scale = head_scale(a, u->b, h), .scale_t = head_cell(&a->scale.t, u->b, h) };
  const head_view q = head_of(&a->q.v, a->q.offsets, u->b, h), q_t = head_of(&a->q.t, a->q.offsets, u->b, h);
  if (!goes_on) {
    u->sums[h - u->h0] = u->sums_t[h - u->h0] = 0;
    if (first) clear_bias(a, &to.bias);
    if (second) clear_bias(a, &to.bias_t);
  }
  for (int64_t i = 0; i < blocks_of(u->T); i++) {
    const block_plan *p = plan_of(&u->memo, a, u->b, i, u->T, u->S, j, j + n, &u->ahead);
    up_block(u, p, h, &to, keys, h > u->h0 || i > 0, goes_on, what);
    if (!last) continue;
    if (first) {
      if (a->scale.d.data) *scale_sum += lanes_dot(u, p, u->dQ, &q);
      unpack_block(&to.q, p, u->D, u->Dp, u->dQ, NULL, to.scale);
    }
    if (second) {
      if (a->scale.td.data) {
        *scale_sum_t += lanes_dot(u, p, u->dQ_t, &q);
        *scale_sum_t += lanes_dot(u, p, u->dQ, &q_t);
      }
      unpack_block(&to.q_t, p, u->D, u->Dp, u->dQ_t, NULL, to.scale);
      if (to.scale_t != 0) {
        head_view more = to.q_t;
        more.add = 1;
        unpack_block(&more, p, u->D, u->Dp, u->dQ, NULL, to.scale_t);
      }
    }
  }
}

static void head_sum(const mica_wire *w, int64_t b, int64_t h, double sum) {
  head_view out = { (float *)micak_task(w, NULL, b), w->stride[0], 0, (w->flags & MICA_ADD) || micak_same_slot(w, NULL, b) };
  if (!out.at) return;
  float *at = out.at + h * out.row;
  *at = out.add ? *at + (float)sum : (float)sum;
}

/* what the units after `unit` will pack, and the rows that they will write */
static inline void look_ahead(up_unit *u, const int what, int64_t unit, int64_t last, int begins) {
  const mica_attention_args *a = u->a;
  const int first = what & FIRST, second = what & SECOND;
  int64_t b, g, h, end, D = a->D, tensors = what == FIRST ? 8 : what == SECOND ? 12 : 15;
  int64_t heads = ahead_heads(unit, last, a->G, D, at_least(a->T, a->S), tensors, &b, &g, begins);
  if (!heads) return;
  ahead_list *list = &u->ahead;
  int64_t T = micak_rows(a->q.offsets, b, a->T), S = micak_rows(a->k.offsets, b, a->S), of_q = a->H;
  attention_query_heads(a, g, &h, &end);
  if (heads == 1) of_q = end - h;
  list->count = list->k = 0;
  const mica_port *keys[] = { &a->k, &a->v }, *rows[] = { &a->q, &a->out };
  for (int i = 0; i < 2; i++) {
    const mica_port *k = keys[i], *r = rows[i];
    ahead_of(list, &k->v, k->offsets, b, g, heads, D, S);
    ahead_of(list, &r->v, r->offsets, b, h, of_q, D, T);
    if (!second) continue;
    ahead_of(list, &k->t, k->offsets, b, g, heads, D, S);
    ahead_of(list, &r->t, r->offsets, b, h, of_q, D, T);
  }
  ahead_of(list, &a->out.d, a->out.offsets, b, h, of_q, D, T);
  if (second) ahead_of(list, &a->out.td, a->out.offsets, b, h, of_q, D, T);
  if (first) {
    ahead_of(list, &a->q.d, a->q.offsets, b, h, of_q, D, T);
    for (int i = 0; i < 2; i++) ahead_of(list, &keys[i]->d, keys[i]->offsets, b, g, heads, D, S);
  }
  if (second) {
    ahead_of(list, &a->q.td, a->q.offsets, b, h, of_q, D, T);
    for (int i = 0; i < 2; i++) ahead_of(list, &keys[i]->td, keys[i]->offsets, b, g, heads, D, S);
  }
}

INLINE void up(up_unit *u, int64_t b, int64_t g, const int what) {
  const mica_attention_args *a = u->a;
  const int first = what & FIRST, second = what & SECOND;
  u->b = b, u->g = g, u->T = micak_rows(a->q.offsets, b, a->T), u->S = micak_rows(a->k.offsets, b, a->S);
  u->one_block = u->S <= ATTENTION_KEYS;
  attention_query_heads(a, g, &u->h0, &u->h1);
  const head_view k = head_of(&a->k.v, a->k.offsets, b, g), v = head_of(&a->v.v, a->v.offsets, b, g);
  const head_view k_t = head_of(&a->k.t, a->k.offsets, b, g), v_t = head_of(&a->v.t, a->v.offsets, b, g);
  keys_out to;
  if (first) to.k = key_rows_of(u, &a->k, &a->k.d, u->dK), to.v = key_rows_of(u, &a->v, &a->v.d, u->dV);
  if (second) to.k_t = key_rows_of(u, &a->k, &a->k.td, u->dK_t), to.v_t = key_rows_of(u, &a->v, &a->v.td, u->dV_t);
  for (int64_t j = 0; j == 0 || j < u->S; j += ATTENTION_KEYS) {
    int64_t n = at_most(u->S - j, ATTENTION_KEYS);
    pack(&k, j, n, u->D, u->Dp, 1, u->K);
    pack(&v, j, n, u->D, u->Dp, 1, u->V);
    if (second && u->k_moves) pack(&k_t, j, n, u->D, u->Dp, 1, u->K_t);
    if (second && u->v_moves) pack(&v_t, j, n, u->D, u->Dp, 1, u->V_t);
    if (u->T == 0) { /* no row will write them */
      const size_t bytes = (size_t)(n * u->Dp) * sizeof(float);
      if (first) memset(u->dK, 0, bytes), memset(u->dV, 0, bytes);
      if (second) memset(u->dK_t, 0, bytes), memset(u->dV_t, 0, bytes);
    }
    for (int64_t h = u->h0; h < u->h1; h++) {
      double scale_sum = 0, scale_sum_t = 0;
      up_head(u, h, j, n, &to, &scale_sum, &scale_sum_t, what);
      if (j + n < u->S) continue;
      if (first) {
        head_sum(&a->scale.d, b, h, scale_sum);
        head_sum(&a->slopes.d, b, h, u->sums[h - u->h0]);
      }
      if (second) {
        head_sum(&a->scale.td, b, h, scale_sum_t);
        head_sum(&a->slopes.td, b, h, u->sums_t[h - u->h0]);
      }
    }
    if (first) key_rows_done(u, &to.k, j, n), key_rows_done(u, &to.v, j, n);
    if (second) key_rows_done(u, &to.k_t, j, n), key_rows_done(u, &to.v_t, j, n);
  }
}

INLINE mica_status walk_up(const mica_exec *exec, const mica_attention_args *a, const int what, int64_t first,
                           int64_t count) {
  int sums = (what & FIRST && attention_sums(a, MICA_BACKWARD)) || (what & SECOND && attention_sums(a, MICA_BACKWARD_JVP));
  up_unit u;
  up_open(&u, a, exec->scratch, what);
  for (int64_t i = first; i < first + count; i++) {
    int64_t g = i % a->G, b = i / a->G;
    if (!sums && a->S <= ATTENTION_KEYS) look_ahead(&u, what, i, first + count, i == first);
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++) up(&u, task, g, what);
  }
  return MICA_OK;
}
CPU_KERNEL(attention_backward) { return walk_up(exec, args, FIRST, first, count); }
CPU_KERNEL(attention_backward_jvp) { return walk_up(exec, args, SECOND, first, count); }
CPU_KERNEL(attention_backward_both) { return walk_up(exec, args, FIRST | SECOND, first, count); }
