/* mlp_loop on the CPU. an activation is a row of lanes for each unit, one lane a row of the task; rows beyond the lanes
 * come in further chunks. */
#include "common/isa.h"
#include "common/simd.h"
#include "mlp/mlp_loop_internal.h"
#include "mlp/mlp_softmax_internal.h"

#define INLINE static inline __attribute__((always_inline))
enum { BLOCK = 8, MOST = MICAK_MLP_LAYERS };

/* what a call works in */
typedef struct work {
  const micak_mlp_loop *m;
  int64_t row[MOST], weights;                /* floats of a row of weights; of all */
  float *theta[MOST], *g[MOST], *u[MOST], *v[MOST], *h[MOST]; /* weights, gradient, cotangent, v = rates u, H v */
  float *stretch;                            /* (stride, weights): thetas from a kept one on */
  float *trail;                              /* of a task: the kept ones */
  float *first[MOST];                        /* the last start: tasks may share it */
  const float *seen[2 * MOST];               /* where that was, once it is loaded */
  int loaded;
  float *a[MOST + 1], *at[MOST + 1];         /* (in + 1, VW) inputs of each layer and outputs; tangents */
  float *d[MOST + 1], *dt[MOST + 1];         /* (units, VW) cotangents */
  float *rows[MOST], *rows_t[MOST];          /* (VW, row): activations by row, and tangents */
} work;

static work work_of(const micak_mlp_loop *m, float *at) {
  work w = { .m = m, .weights = mlp_weights(m) };
  float **all[] = { w.theta, w.g, w.u, w.v, w.h, w.first };
  w.stretch = at + mlp_cleared(m);
  w.trail = w.stretch + (m->stride > 1 ? m->stride * w.weights : 0);
  memset(at, 0, (size_t)mlp_cleared(m) * sizeof *at);
  for (int l = 0; l < m->layers; l++) w.row[l] = mlp_row(m, l);
  for (int i = 0; i < 6; i++)
    for (int l = 0; l < m->layers; l++) {
      all[i][l] = at;
      at += m->width[l + 1] * w.row[l];
    }
  float **act[] = { w.a, w.at, w.d, w.dt };
  for (int i = 0; i < 4; i++)
    for (int l = 0; l <= m->layers; l++) {
      act[i][l] = at;
      at += (m->width[l] + (l < m->layers)) * VW;
      /* the input of a bias is 1 and does not move */
      for (int k = 0; i == 0 && l < m->layers && k < VW; k++) w.a[l][m->width[l] * VW + k] = 1;
    }
  for (int i = 0; i < 2; i++)
    for (int l = 0; l < m->layers; l++) {
      (i ? w.rows_t : w.rows)[l] = at;
      /* without a bias, its column of the gradient is zero */
      for (int r = 0; i == 0 && m->bias[l] && r < VW; r++) at[r * w.row[l] + m->width[l]] = 1;
      at += VW * w.row[l];
    }
  return w;
}

/* ---- products ---- */

/* z (n, VW) = w (n, in) a (in, VW); `add`: on top of z */
INLINE void dense_block(const float *w, int64_t row, const float *a, int64_t in, float *z, const int n, const int add) {
  vf sum[BLOCK];
  for (int j = 0; j < n; j++) sum[j] = add ? v_load(z + j * VW) : v_zero();
  for (int64_t i = 0; i < in; i++) {
    vf x = v_load(a + i * VW);
    for (int j = 0; j < n; j++) sum[j] = v_fma(v_set1(w[j * row + i]), x, sum[j]);
  }
  for (int j = 0; j < n; j++) v_store(z + j * VW, sum[j]);
}
INLINE void dense(const float *w, int64_t row, const float *a, int64_t in, float *z, int64_t out, const int add) {
  int64_t o = 0;
  for (; o + BLOCK <= out; o += BLOCK) dense_block(w + o * row, row, a, in, z + o * VW, BLOCK, add);
  for (; o + 2 <= out; o += 2) dense_block(w + o * row, row, a, in, z + o * VW, 2, add);
  for (; o < out; o++) dense_block(w + o * row, row, a, in, z + o * VW, 1, add);
}
/* d (in, VW) = w^T e (out, VW) */
INLINE void turned_block(const float *w, int64_t row, const float *e, int64_t out, float *d, const int n,
                         const int add) {
  vf sum[BLOCK];
  for (int j = 0; j < n; j++) sum[j] = add ? v_load(d + j * VW) : v_zero();
  for (int64_t o = 0; o < out; o++) {
    vf x = v_load(e + o * VW);
    for (int j = 0; j < n; j++) sum[j] = v_fma(v_set1(w[o * row + j]), x, sum[j]);
  }
  for (int j = 0; j < n; j++) v_store(d + j * VW, sum[j]);
}
INLINE void turned(const float *w, int64_t row, const float *e, int64_t out, float *d, int64_t in, const int add) {
  int64_t i = 0;
  for (; i + BLOCK <= in; i += BLOCK) turned_block(w + i, row, e, out, d + i * VW, BLOCK, add);
  for (; i + 2 <= in; i += 2) turned_block(w + i, row, e, out, d + i * VW, 2, add);
  for (; i < in; i++) turned_block(w + i, row, e, out, d + i * VW, 1, add);
}

/* g (n, nv vectors) = sum over rows r of d (n, VW)[r] rows (r, row); `add`: on top of g */
INLINE void outer_block(const float *d, const float *rows, int64_t row, int64_t count, float *g, int add, const int n,
                        const int nv) {
  vf sum[4][4];
  for (int o = 0; o < n; o++)
    for (int v = 0; v < nv; v++) sum[o][v] = add ? v_load(g + o * row + v * VW) : v_zero();
  for (int64_t r = 0; r < count; r++) {
    vf x[4];
    for (int v = 0; v < nv; v++) x[v] = v_load(rows + r * row + v * VW);
    for (int o = 0; o < n; o++) {
      vf e = v_set1(d[o * VW + r]);
      for (int v = 0; v < nv; v++) sum[o][v] = v_fma(e, x[v], sum[o][v]);
    }
  }
  for (int o = 0; o < n; o++)
    for (int v = 0; v < nv; v++) v_store(g + o * row + v * VW, sum[o][v]);
}
INLINE void outer_columns(const float *d, const float *rows, int64_t row, int64_t count, float *g, int add, int64_t out,
                          const int nv) {
  int64_t o = 0;
  for (; o + 4 <= out; o += 4) outer_block(d + o * VW, rows, row, count, g + o * row, add, 4, nv);
  for (; o < out; o++) outer_block(d + o * VW, rows, row, count, g + o * row, add, 1, nv);
}
static void outer(const float *d, const float *rows, int64_t row, int64_t count, float *g, int add, int64_t out) {
  int64_t c = 0;
  for (; c + 3 * VW <= row; c += 3 * VW) outer_columns(d, rows + c, row, count, g + c, add, out, 3);
  for (; c < row; c += VW) outer_columns(d, rows + c, row, count, g + c, add, out, 1);
}

/* (n, VW) -> rows (count, row) */
static void by_row(const float *a, int64_t n, int64_t count, float *rows, int64_t row) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float *p = a + i * VW;
    for (int64_t r = 0; r < count; r++) {
      float *to = rows + r * row + i;
      to[0] = p[r], to[1] = p[VW + r], to[2] = p[2 * VW + r], to[3] = p[3 * VW + r];
    }
  }
  for (; i < n; i++)
    for (int64_t r = 0; r < count; r++) rows[r * row + i] = a[i * VW + r];
}

/* ---- a task ---- */

INLINE vf act_value(vf z, const int act) {
  return act == MICA_ACT_RELU ? v_max(z, v_zero()) : act == MICA_ACT_TANH ? v_tanh(z) : v_sigmoid(z);
}
/* slope and curvature from the value */
INLINE vf act_slope(vf a, const int act) {
  if (act == MICA_ACT_RELU) return v_keep(v_gt(a, v_zero()), v_set1(1));
  return act == MICA_ACT_TANH ? v_fma(-a, a, v_set1(1)) : v_fma(-a, a, a);
}
INLINE vf act_curve(vf a, vf slope, const int act) {
  return act == MICA_ACT_TANH ? -2.0f * a * slope : slope * v_fma(v_set1(-2), a, v_set1(1));
}

typedef struct data {
  const float *x;                            /* NULL: zeros; y as well */
  const void  *y;                            /* floats, or labels */
  int64_t      rows;
} data;

static data data_of(const mica_wire *x, const mica_wire *y, const int32_t *offsets, int64_t R, int64_t b) {
  return (data){ micak_task(x, offsets, b), micak_task(y, offsets, b), micak_rows(offsets, b, R) };
}
static data support_of(const micak_mlp_loop *m, int64_t b) { return data_of(&m->x, &m->y, m->offsets, m->R, b); }

/* labels of a chunk's rows; -1 beyond them */
static vf labels_of(const data *t, int64_t first, int64_t count) {
  const int32_t *label = t->y;
  float          at[VW];
  for (int64_t r = 0; r < VW; r++) at[r] = r >= count ? -1 : label ? (float)label[first + r] : 0;
  return v_load(at);
}

/* activations of a chunk, and the last cotangent: the residual times `scale`, where a loss is 1/2 of squares or a cross
 * entropy; returns the squares, or cross entropies, of rows. labels: the last activations become probabilities */
INLINE vf down(work *w, const data *t, int64_t first, int64_t count, float scale, const int act) {
  const micak_mlp_loop *m = w->m;
  const int last = m->layers;
  const int64_t in = m->width[0], out = m->width[last];
  for (int64_t i = 0; i < in; i++)
    for (int r = 0; r < VW; r++) w->a[0][i * VW + r] = t->x && r < count ? t->x[(first + r) * in + i] : 0;
  for (int64_t r = 0; r < count; r++) {
    float *row = w->rows[0] + r * w->row[0];
    if (t->x) memcpy(row, t->x + (first + r) * in, (size_t)in * sizeof *row);
    else memset(row, 0, (size_t)in * sizeof *row);
  }
  for (int l = 0; l < last; l++) {
    dense(w->theta[l], w->row[l], w->a[l], m->width[l] + 1, w->a[l + 1], m->width[l + 1], 0);
    if (l + 1 == last) break;
    for (int64_t i = 0; i < m->width[l + 1]; i++) {
      float *at = w->a[l + 1] + i * VW;
      v_store(at, act_value(v_load(at), act));
    }
  }
  if (m->labels) {
    const vf label = labels_of(t, first, count), loss = mlp_softmax(w->a[last], out, VW, label);
    for (int64_t o = 0; o < out; o++)
      v_store(w->d[last] + o * VW, scale * mlp_residual(v_load(w->a[last] + o * VW), label, o));
    return loss;
  }
  vf squares = v_zero();
  for (int64_t o = 0; o < out; o++) {
    vf y = t->y ? v_load_strided((const float *)t->y + first * out + o, out, count) : v_zero();
    vf e = v_load(w->a[last] + o * VW) - y;
    e = count < VW ? v_keep(v_lt(v_load((const float[32]){ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }),
                                 v_set1((float)count)), e) : e;
    squares = v_fma(e, e, squares);
    v_store(w->d[last] + o * VW, scale * e);
  }
  return squares;
}

/* of the derivative of a row's loss, beside its residual */
static float factor(const micak_mlp_loop *m) { return m->labels ? 1 : 2; }

/* cotangents of every layer's sums: d[l + 1] becomes that of z_l */
INLINE void up(work *w, const int act) {
  const micak_mlp_loop *m = w->m;
  for (int l = m->layers - 1; l > 0; l--) {
    turned(w->theta[l], w->row[l], w->d[l + 1], m->width[l + 1], w->d[l], m->width[l], 0);
    for (int64_t i = 0; i < m->width[l]; i++) {
      float *d = w->d[l] + i * VW;
      v_store(d, v_load(d) * act_slope(v_load(w->a[l] + i * VW), act));
    }
  }
}

/* g = the gradient of L at theta; returns L */
INLINE float gradient(work *w, const data *t, const int act) {
  const micak_mlp_loop *m = w->m;
  const float scale = t->rows ? factor(m) / (float)t->rows : 0;
  float sum = 0;
  if (!t->rows) memset(w->g[0], 0, (size_t)w->weights * sizeof(float));
  for (int64_t first = 0; first < t->rows; first += VW) {
    int64_t count = t->rows - first < VW ? t->rows - first : VW;
    sum += v_sum(down(w, t, first, count, scale, act));
    up(w, act);
    for (int l = 0; l < m->layers; l++) {
      if (l) by_row(w->a[l], m->width[l], count, w->rows[l], w->row[l]);
      outer(w->d[l + 1], w->rows[l], w->row[l], count, w->g[l], first > 0, m->width[l + 1]);
    }
  }
  return t->rows ? sum / (float)t->rows : 0;
}

/* the loss of a task's query at theta; `back`: u = its gradient times the seeds */
INLINE void judge(work *w, int64_t b, int back, const int act) {
  const micak_mlp_loop *m = w->m;
  const micak_mlp_query *q = &m->query;
  const int last = m->layers;
  const data t = data_of(&q->x, &q->y, q->offsets, q->R, b);
  const int32_t *offsets = q->mean_rows ? NULL : q->offsets;
  float *loss = micak_task(&q->loss, offsets, b), sum = 0;
  const float *loss_d = micak_task(&q->loss_d, offsets, b);
  const float part = q->mean_out ? 1.0f / (float)m->width[last] : 1, over = t.rows ? 1.0f / (float)t.rows : 0;
  if (back && !t.rows) memset(w->u[0], 0, (size_t)w->weights * sizeof(float));
  for (int64_t first = 0; first < t.rows; first += VW) {
    int64_t count = t.rows - first < VW ? t.rows - first : VW;
    vf losses = part * down(w, &t, first, count, 1, act), seed = v_zero();
    if (loss_d) seed = q->mean_rows ? v_set1(loss_d[0] * over) : v_load_n(loss_d + first, count);
    for (int64_t o = 0; o < m->width[last]; o++) {
      float *d = w->d[last] + o * VW;
      v_store(d, factor(m) * part * seed * v_load(d));
    }
    sum += v_sum(losses);
    if (loss && !q->mean_rows) v_store_n(loss + first, losses, count);
    if (!back) continue;
    up(w, act);
    for (int l = 0; l < last; l++) {
      if (l) by_row(w->a[l], m->width[l], count, w->rows[l], w->row[l]);
      outer(w->d[l + 1], w->rows[l], w->row[l], count, w->u[l], first > 0, m->width[l + 1]);
    }
  }
  if (loss && q->mean_rows) *loss = sum * over;
}

/* h = H v; `want`: g too */
INLINE void curvature(work *w, const data *t, int want, const int act) {
  const micak_mlp_loop *m = w->m;
  const int last = m->layers;
  const float scale = t->rows ? factor(m) / (float)t->rows : 0;
  if (!t->rows) {
    memset(w->h[0], 0, (size_t)w->weights * sizeof(float));
    memset(w->g[0], 0, (size_t)w->weights * sizeof(float));
  }
  for (int64_t first = 0; first < t->rows; first += VW) {
    int64_t count = t->rows - first < VW ? t->rows - first : VW;
    down(w, t, first, count, scale, act);
    /* tangents: zt = w at + v a. the slope is taken on the way, and zt is left in dt for the curvature */
    for (int l = 0; l < last; l++) {
      dense(w->v[l], w->row[l], w->a[l], m->width[l] + 1, w->at[l + 1], m->width[l + 1], 0);
      if (l) dense(w->theta[l], w->row[l], w->at[l], m->width[l], w->at[l + 1], m->width[l + 1], 1);
      if (l + 1 == last) break;
      for (int64_t i = 0; i < m->width[l + 1]; i++) {
        float *at = w->at[l + 1] + i * VW;
        vf zt = v_load(at), slope = act_slope(v_load(w->a[l + 1] + i * VW), act);
        v_store(w->dt[l + 1] + i * VW, zt);
        v_store(at, zt * slope);
      }
    }
    if (m->labels)
      mlp_residual_tangent(w->a[last], w->at[last], m->width[last], VW, v_set1(scale), w->dt[last]);
    for (int64_t o = 0; !m->labels && o < m->width[last]; o++) {
      vf e = v_load(w->at[last] + o * VW);
      for (int r = (int)count; r < VW; r++) e[r] = 0;
      v_store(w->dt[last] + o * VW, scale * e);
    }
    for (int l = last - 1; l > 0; l--) {
      float buffer[MICAK_MLP_WIDTH * VW] __attribute__((aligned(64)));
      turned(w->theta[l], w->row[l], w->d[l + 1], m->width[l + 1], w->d[l], m->width[l], 0);
      turned(w->theta[l], w->row[l], w->dt[l + 1], m->width[l + 1], buffer, m->width[l], 0);
      turned(w->v[l], w->row[l], w->d[l + 1], m->width[l + 1], buffer, m->width[l], 1);
      for (int64_t i = 0; i < m->width[l]; i++) {
        vf a = v_load(w->a[l] + i * VW), slope = act_slope(a, act), d = v_load(w->d[l] + i * VW);
        vf moved = v_load(buffer + i * VW) * slope;
        if (act != MICA_ACT_RELU) moved = v_fma(act_curve(a, slope, act) * v_load(w->dt[l] + i * VW), d, moved);
        v_store(w->dt[l] + i * VW, moved);
        v_store(w->d[l] + i * VW, d * slope);
      }
    }
    for (int l = 0; l < last; l++) {
      if (l) {
        by_row(w->a[l], m->width[l], count, w->rows[l], w->row[l]);
        by_row(w->at[l], m->width[l], count, w->rows_t[l], w->row[l]);
      }
      outer(w->dt[l + 1], w->rows[l], w->row[l], count, w->h[l], first > 0, m->width[l + 1]);
      if (l) outer(w->d[l + 1], w->rows_t[l], w->row[l], count, w->h[l], 1, m->width[l + 1]);
      if (want) outer(w->d[l + 1], w->rows[l], w->row[l], count, w->g[l], first > 0, m->width[l + 1]);
    }
  }
}

/* ---- weights in and out ---- */

INLINE void copy(float *to, const float *from, int64_t n) {
  int64_t i = 0;
  for (; i + VW <= n; i += VW) v_store(to + i, v_load(from + i));
  if (n - i > 4) v_store_n(to + i, v_load_n(from + i, n - i), n - i);
  else for (; i < n; i++) to[i] = from[i];
}

/* a layer's weights and bias from (out, in) and (out) numbers; NULL: zeros */
static void load_layer(const work *w, int l, const float *weight, const float *bias, float *to) {
  const int64_t in = w->m->width[l];
  for (int64_t o = 0; o < w->m->width[l + 1]; o++) {
    float *row = to + o * w->row[l];
    if (weight) copy(row, weight + o * in, in);
    else memset(row, 0, (size_t)in * sizeof *row);
    row[in] = bias ? bias[o] : 0;
  }
}
static void store_layer(const work *w, int l, const float *from, float *weight, float *bias) {
  const int64_t in = w->m->width[l];
  for (int64_t o = 0; o < w->m->width[l + 1]; o++) {
    if (weight) copy(weight + o * in, from + o * w->row[l], in);
    if (bias) bias[o] = from[o * w->row[l] + in];
  }
}
static void load_wires(const work *w, const mica_wire *wires, int64_t b, float *const *to) {
  for (int l = 0; l < w->m->layers; l++)
    load_layer(w, l, micak_task(&wires[2 * l], NULL, b), micak_task(&wires[2 * l + 1], NULL, b), to[l]);
}

/* theta = where task b starts */
static void load_start(work *w, int64_t b) {
  int same = w->loaded;
  for (int i = 0; i < 2 * w->m->layers; i++) {
    const float *at = micak_task(&w->m->start[i], NULL, b);
    same &= at == w->seen[i];
    w->seen[i] = at;
  }
  if (!same) load_wires(w, w->m->start, b, w->first);
  w->loaded = 1;
  copy(w->theta[0], w->first[0], w->weights);
}

static float rate_of(const micak_mlp_loop *m, int param, int64_t b, int64_t step) {
  const float *at = micak_task(&m->rate[param], NULL, b);
  return at ? at[step * m->rate_step[param]] : 0;
}

/* to = rate from, all layers: a column's rate is that of the weights or of the bias */
static void times_rate(const work *w, float *const *to, float *const *from, int64_t b, int64_t step) {
  const micak_mlp_loop *m = w->m;
  for (int l = 0; l < m->layers; l++) {
    const vf rate = v_set1(rate_of(m, 2 * l, b, step));
    const float bias = rate_of(m, 2 * l + 1, b, step);
    for (int64_t o = 0; o < m->width[l + 1]; o++) {
      float *t = to[l] + o * w->row[l];
      const float *f = from[l] + o * w->row[l];
      for (int64_t i = 0; i < w->row[l]; i += VW) v_store(t + i, rate * v_load(f + i));
      t[m->width[l]] = bias * f[m->width[l]];
    }
  }
}

/* theta_k, k >= 1 a multiple of the stride: in a worker's trail, or where all tasks' are kept */
static void keep(const work *w, int64_t k, int64_t b, int task, int load) {
  const micak_mlp_loop *m = w->m;
  float *trail = w->trail + (k / m->stride - 1) * w->weights;
  if (task) {
    if (load) copy(w->theta[0], trail, w->weights);
    else copy(trail, w->theta[0], w->weights);
    return;
  }
  for (int l = 0; l < m->layers; l++) {
    float *at[2];
    for (int i = 0; i < 2; i++) {
      int64_t n = m->width[l + 1] * (i ? 1 : m->width[l]);
      at[i] = m->kept[2 * l + i] ? m->kept[2 * l + i] + ((k / m->stride - 1) * m->B + b) * n : NULL;
    }
    if (load) load_layer(w, l, at[0], at[1], w->theta[l]);
    else store_layer(w, l, w->theta[l], at[0], at[1]);
  }
}

/* theta -= rate g */
static void descend(work *w, int64_t b, int64_t step) {
  times_rate(w, w->v, w->g, b, step);
  for (int64_t i = 0; i < w->weights; i += VW) v_store(w->theta[0] + i, v_load(w->theta[0] + i) - v_load(w->v[0] + i));
}

/* all steps; `task`: what is kept stays in the worker */
INLINE void steps_down(work *w, const data *t, int64_t b, int task, const int act) {
  const micak_mlp_loop *m = w->m;
  float *loss = micak_task(&m->loss, NULL, b);
  load_start(w, b);
  for (int64_t k = 0; k < m->steps; k++) {
    float value = gradient(w, t, act);
    if (loss) loss[k] = value;
    descend(w, b, k);
    if (k + 1 < m->steps && (k + 1) % m->stride == 0) keep(w, k + 1, b, task, 0);
  }
}

INLINE mica_status forward(const mica_exec *exec, const micak_mlp_loop *m, int64_t begin, int64_t count,
                           const int act) {
  work w = work_of(m, exec->scratch);
  for (int64_t b = begin; b < begin + count; b++) {
    const data t = support_of(m, b);
    steps_down(&w, &t, b, 0, act);
    for (int l = 0; l < m->layers; l++)
      store_layer(&w, l, w.theta[l], micak_task(&m->last[2 * l], NULL, b), micak_task(&m->last[2 * l + 1], NULL, b));
  }
  return MICA_OK;
}

/* -<g, u> of a layer's weights and of its bias */
static void rate_slopes(const work *w, float *out) {
  const micak_mlp_loop *m = w->m;
  for (int l = 0; l < m->layers; l++) {
    float weights = 0, bias = 0;
    for (int64_t o = 0; o < m->width[l + 1]; o++) {
      const float *g = w->g[l] + o * w->row[l], *u = w->u[l] + o * w->row[l];
      vf sum = v_zero();
      for (int64_t i = 0; i < w->row[l]; i += VW) sum = v_fma(v_load(g + i), v_load(u + i), sum);
      float both = g[m->width[l]] * u[m->width[l]];
      weights += v_sum(sum) - both, bias += both;
    }
    out[2 * l] = -weights, out[2 * l + 1] = -bias;
  }
}

/* u from the last theta to the first, and to `back` */
INLINE void steps_up(work *w, const data *t, int64_t b, int task, const int act) {
  const micak_mlp_loop *m = w->m;
  const float *loss_d = micak_task(&m->loss_d, NULL, b);
  const int slopes = m->rate_back || loss_d;
  const int64_t stride = m->stride, row = b - m->back_first;
  int64_t begins = (m->steps - 1) / stride * stride;
  for (; begins >= 0 && begins + stride > m->stop; begins -= stride) {
    int64_t end = begins + stride < m->steps ? begins + stride : m->steps, low = begins > m->stop ? begins : m->stop;
    if (m->first_order && !slopes) break;  /* u goes back as it is */
    if (begins == 0) load_start(w, b);
    else keep(w, begins, b, task, 1);
    for (int64_t k = begins; stride > 1 && k < end; k++) {
      copy(w->stretch + (k - begins) * w->weights, w->theta[0], w->weights);
      if (k + 1 == end) break;
      gradient(w, t, act);
      descend(w, b, k);
    }
    for (int64_t k = end - 1; k >= low; k--) {
      if (stride > 1) copy(w->theta[0], w->stretch + (k - begins) * w->weights, w->weights);
      if (m->first_order) gradient(w, t, act);
      else {
        times_rate(w, w->v, w->u, b, k);
        curvature(w, t, slopes, act);
      }
      if (m->rate_back) rate_slopes(w, m->rate_back + (row * m->steps + k) * MICAK_MLP_PARAMS);
      for (int64_t i = 0; !m->first_order && i < w->weights; i += VW)
        v_store(w->u[0] + i, v_load(w->u[0] + i) - v_load(w->h[0] + i));
      for (int64_t i = 0; loss_d && i < w->weights; i += VW)
        v_store(w->u[0] + i, v_fma(v_set1(loss_d[k]), v_load(w->g[0] + i), v_load(w->u[0] + i)));
    }
  }
  float *to = m->back + row * micak_mlp_params(m);
  for (int l = 0; l < m->layers; l++) {
    float *bias = to + mlp_count(m, 2 * l);
    store_layer(w, l, w->u[l], to, m->bias[l] ? bias : NULL);
    to = bias + mlp_count(m, 2 * l + 1);
  }
}

INLINE mica_status backward(const mica_exec *exec, const micak_mlp_loop *m, int64_t begin, int64_t count,
                            const int act) {
  work w = work_of(m, exec->scratch);
  for (int64_t b = begin; b < begin + count; b++) {
    const data t = support_of(m, b);
    load_wires(&w, m->last_d, b, w.u);
    steps_up(&w, &t, b, 0, act);
  }
  return MICA_OK;
}

INLINE mica_status whole(const mica_exec *exec, const micak_mlp_loop *m, int64_t begin, int64_t count, int back,
                         const int act) {
  work w = work_of(m, exec->scratch);
  for (int64_t b = begin; b < begin + count; b++) {
    const data t = support_of(m, b);
    steps_down(&w, &t, b, 1, act);
    judge(&w, b, back, act);
    if (back) steps_up(&w, &t, b, 1, act);
  }
  return MICA_OK;
}
INLINE mica_status task(const mica_exec *e, const micak_mlp_loop *m, int64_t f, int64_t n, const int act) {
  return whole(e, m, f, n, 0, act);
}
INLINE mica_status both(const mica_exec *e, const micak_mlp_loop *m, int64_t f, int64_t n, const int act) {
  return whole(e, m, f, n, 1, act);
}

/* one copy for each activation */
#define BY_ACT(face)                                                                              \
  static mica_status face##_relu(const mica_exec *e, const micak_mlp_loop *m, int64_t f, int64_t n) { \
    return face(e, m, f, n, MICA_ACT_RELU);                                                       \
  }                                                                                               \
  static mica_status face##_tanh(const mica_exec *e, const micak_mlp_loop *m, int64_t f, int64_t n) { \
    return face(e, m, f, n, MICA_ACT_TANH);                                                       \
  }                                                                                               \
  static mica_status face##_sigmoid(const mica_exec *e, const micak_mlp_loop *m, int64_t f, int64_t n) { \
    return face(e, m, f, n, MICA_ACT_SIGMOID);                                                    \
  }                                                                                               \
  CPU_KERNEL(mlp_loop_##face) {                                                                   \
    const micak_mlp_loop *m = args;                                                               \
    return m->act == MICA_ACT_RELU   ? face##_relu(exec, m, first, count)                         \
           : m->act == MICA_ACT_TANH ? face##_tanh(exec, m, first, count)                         \
                                     : face##_sigmoid(exec, m, first, count);                     \
  }
BY_ACT(forward)
BY_ACT(backward)
BY_ACT(task)
BY_ACT(both)
