/* mlp_task on the CPU for small networks: a vector holds one number of VW tasks, so that every product is as wide as
 * the machine whatever the widths and rows. a task's arithmetic is that of its lane alone. */
#include "common/isa.h"
#include "common/simd.h"
#include "common/simd_transpose.h"
#include "mlp/mlp_loop_internal.h"
#include "mlp/mlp_softmax_internal.h"

#define INLINE static inline __attribute__((always_inline))
/* rows of a block of a product, weights of a block of an outer product: as many sums as the registers hold */
#if defined(MICAK_ISA_AVX512)
enum { ROWS = 10, COLUMNS = 4 };
#else
enum { ROWS = 5, COLUMNS = 2 };
#endif
enum { MOST = MICAK_MLP_LAYERS };

/* support or query of the tasks in lanes; (units, R) vectors */
typedef struct batch {
  float *a[MOST + 1], *d[MOST + 1];          /* inputs and values of each layer; cotangents of its sums */
  float *y;                                  /* or (R) labels, -1 where a task has no row */
  int64_t R;                                 /* most rows of a task */
  vf rows;                                   /* of each task */
  int64_t count[VW];                         /* the same */
} batch;

typedef struct work {
  const micak_mlp_loop *m;
  int64_t params, at[2 * MOST];              /* numbers in all, where each parameter begins */
  float *first, *kept, *stretch;             /* thetas: vectors in the order of the parameters */
  float *u;                                  /* cotangent, where it will be summed from */
  const float *seen[2 * MOST];               /* what `first` was loaded from, when all lanes share it */
  batch support, query;
  float *tangent[MOST + 1], *dt[MOST + 1];   /* of values; of cotangents */
  float *ones;                               /* inputs of a bias */
  int64_t b, lanes;                          /* tasks b .. b + lanes - 1 */
} work;

/* ---- products ---- */

/* what becomes of a sum s */
enum { PLAIN, VALUE, SLOPE, TANGENT, TURN };

/* y (nj, R) = after(alpha u x + beta bias + w xt), sums over nk in order. u and w element (j, k) at j sj + k sk */
typedef struct product {
  const float *u, *x, *w, *xt, *bias;
  vf alpha, beta;
  int64_t sj, sk, nj, nk, R;
  int after, act;
  const float *a, *d;                        /* values and cotangents of y's layer */
  float *y, *z;
} product;

/* a value in a register, for all its uses */
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__("" : "+x"(x))
#else
#define IN_REGISTER(x) ((void)0)
#endif
#if defined(MICAK_ISA_AVX512)
#undef IN_REGISTER
#define IN_REGISTER(x) __asm__("" : "+v"(x))
#endif

INLINE vf act_value(vf z, int act) {
  return act == MICA_ACT_RELU ? v_max(z, v_zero()) : act == MICA_ACT_TANH ? v_tanh(z) : v_sigmoid(z);
}
INLINE vf act_slope(vf a, int act) {
  if (act == MICA_ACT_RELU) return v_keep(v_gt(a, v_zero()), v_set1(1));
  return act == MICA_ACT_TANH ? v_fma(-a, a, v_set1(1)) : v_fma(-a, a, a);
}
/* curvature over slope */
INLINE vf act_bend(vf a, int act) {
  return act == MICA_ACT_TANH ? -2.0f * a : v_fma(v_set1(-2), a, v_set1(1));
}

INLINE void add_up(const float *w, const float *x, const product *p, int64_t j, int64_t r, const int nj, const int nr,
                   vf s[2][ROWS]) {
  w += j * p->sj * VW, x += r * VW;
  for (int64_t k = 0; k < p->nk; k++) {
    vf e[2];
    for (int i = 0; i < nj; i++) e[i] = v_load(w + i * p->sj * VW);
    for (int c = 0; c < nr; c++) {
      vf value = v_load(x + c * VW);
      if (nj > 1) IN_REGISTER(value);
      for (int i = 0; i < nj; i++) s[i][c] = v_fma(e[i], value, s[i][c]);
    }
    w += p->sk * VW, x += p->R * VW;
  }
}

/* what is stored of sums (nj, nr); a number at `at` */
INLINE void store_block(const product *p, int64_t at, const int nj, const int nr, vf s[2][ROWS], const int after,
                        const int act) {
  for (int i = 0; i < nj; i++)
    for (int c = 0; c < nr; c++) {
      const int64_t k = at + (i * p->R + c) * VW;
      vf y = s[i][c];
      if (after == VALUE) y = act_value(y, act);
      if (after > VALUE) {
        vf a = v_load(p->a + k);
        vf moved = act == MICA_ACT_RELU ? v_keep(v_gt(a, v_zero()), y) : y * act_slope(a, act);
        if (after == TANGENT && act != MICA_ACT_RELU) v_store(p->z + k, y);
        if (after == TURN && act != MICA_ACT_RELU)
          moved = v_fma(act_bend(a, act) * v_load(p->y + k), v_load(p->d + k), moved);
        y = moved;
      }
      v_store(p->y + k, y);
    }
}
static void apply(const product *p, const float *sums, int64_t at, int nj, int nr) {
  /* functions and slopes that cost more than to come here */
  for (int i = 0; i < nj; i++)
    for (int c = 0; c < nr; c++) {
      vf s[2][ROWS];
      s[0][0] = v_load(sums + (i * ROWS + c) * VW);
      const int64_t k = at + (i * p->R + c) * VW;
      const int act = p->act;
      if (p->after == VALUE) store_block(p, k, 1, 1, s, VALUE, act);
      else if (p->after == SLOPE) store_block(p, k, 1, 1, s, SLOPE, act);
      else if (p->after == TANGENT) store_block(p, k, 1, 1, s, TANGENT, act);
      else store_block(p, k, 1, 1, s, TURN, act);
    }
}

INLINE void product_block(const product *p, int64_t j, int64_t r, const int nj, const int nr) {
  vf s[2][ROWS];
  for (int i = 0; i < nj; i++)
    for (int c = 0; c < nr; c++) s[i][c] = v_zero();
  if (p->u) {
    add_up(p->u, p->x, p, j, r, nj, nr, s);
    for (int i = 0; i < nj; i++)
      for (int c = 0; c < nr; c++) s[i][c] *= p->alpha;
  }
  for (int i = 0; p->bias && i < nj; i++) {
    vf bias = p->beta * v_load(p->bias + (j + i) * VW);
    for (int c = 0; c < nr; c++) s[i][c] += bias;
  }
  if (p->w) add_up(p->w, p->xt, p, j, r, nj, nr, s);
  const int64_t at = (j * p->R + r) * VW;
  if (p->after == PLAIN) store_block(p, at, nj, nr, s, PLAIN, MICA_ACT_RELU);
  else if (p->act != MICA_ACT_RELU) {
    float sums[2 * ROWS * VW] __attribute__((aligned(64)));
    for (int i = 0; i < nj; i++)
      for (int c = 0; c < nr; c++) v_store(sums + (i * ROWS + c) * VW, s[i][c]);
    apply(p, sums, at, nj, nr);
  } else if (p->after == VALUE) store_block(p, at, nj, nr, s, VALUE, MICA_ACT_RELU);
  else store_block(p, at, nj, nr, s, SLOPE, MICA_ACT_RELU);  /* a tangent's and a turn's are no different */
}
INLINE void product_rows(const product *p, int64_t r, const int nr) {
  int64_t j = 0;
  for (; j + 2 <= p->nj; j += 2) product_block(p, j, r, 2, nr);
  if (j < p->nj) product_block(p, j, r, 1, nr);
}
static void multiply(const product *p) {
  int64_t parts = (p->R + ROWS - 1) / ROWS;
  for (int64_t i = 0, r = 0; i < parts; i++) {
    int64_t n = (p->R - r) / (parts - i);
    switch (n) {
    case 1: product_rows(p, r, 1); break;
    case 2: product_rows(p, r, 2); break;
    case 3: product_rows(p, r, 3); break;
    case 4: product_rows(p, r, 4); break;
    case 5: product_rows(p, r, 5); break;
#if defined(MICAK_ISA_AVX512)
    case 6: product_rows(p, r, 6); break;
    case 7: product_rows(p, r, 7); break;
    case 8: product_rows(p, r, 8); break;
    case 9: product_rows(p, r, 9); break;
    case 10: product_rows(p, r, 10); break;
#endif
    }
    r += n;
  }
}

enum { STEP, SET, BACK };

/* g = sum over rows of d a, h = of dt a + d at.  STEP: to = from - rate g.  SET: to = g.  BACK: slope += g to, then
 * to += loss g - h */
typedef struct outer {
  const float *d, *a, *dt, *at;              /* at NULL: inputs that do not move */
  int64_t no, ni, R;
  int what;
  const float *from;
  float *to;
  vf rate, loss, slope;
} outer;

INLINE void outer_block(outer *p, int64_t o, int64_t i, const int no, const int ni, const int first, const int second) {
  vf g[4][4], h[4][4];
  const int64_t row = p->R * VW;
  for (int x = 0; x < no; x++)
    for (int y = 0; y < ni; y++) g[x][y] = h[x][y] = v_zero();
  for (int64_t r = 0; r < p->R; r++) {
    vf a[4], at[4];
    for (int y = 0; y < ni; y++) a[y] = v_load(p->a + (i + y) * row + r * VW);
    for (int y = 0; second && y < ni; y++) at[y] = p->at ? v_load(p->at + (i + y) * row + r * VW) : v_zero();
    for (int x = 0; x < no; x++) {
      vf d = v_load(p->d + (o + x) * row + r * VW);
      vf dt = second ? v_load(p->dt + (o + x) * row + r * VW) : v_zero();
      for (int y = 0; y < ni; y++) {
        if (first) g[x][y] = v_fma(d, a[y], g[x][y]);
        if (second) h[x][y] = v_fma(d, at[y], v_fma(dt, a[y], h[x][y]));
      }
    }
  }
  const vf rate = p->rate, loss = p->loss;
  vf slope = v_zero();
  const int what = second ? BACK : p->what;
#define EACH(value)                                       \
  for (int x = 0; x < no; x++)                            \
    for (int y = 0; y < ni; y++) {                        \
      const int64_t k = ((o + x) * p->ni + i + y) * VW;   \
      v_store(p->to + k, value);                          \
    }
  if (what == STEP) EACH(v_load(p->from + k) - rate * g[x][y])
  else if (what == SET) EACH(g[x][y])
  else if (!first) EACH(v_load(p->to + k) - h[x][y])
  else {
    for (int x = 0; x < no; x++)
      for (int y = 0; y < ni; y++)
        slope = v_fma(g[x][y], v_load(p->to + ((o + x) * p->ni + i + y) * VW), slope);
    EACH(v_fma(loss, g[x][y], second ? v_load(p->to + k) - h[x][y] : v_load(p->to + k)))
  }
#undef EACH
  p->slope += slope;
}
INLINE void outer_rows(outer *p, int64_t o, const int no, const int first, const int second) {
  const int columns = first && second ? COLUMNS / 2 : COLUMNS;
  int64_t i = 0;
  for (; i + columns <= p->ni; i += columns) outer_block(p, o, i, no, columns, first, second);
  for (; i < p->ni; i++) outer_block(p, o, i, no, 1, first, second);
}
INLINE void outer_all(outer *p, const int first, const int second) {
  int64_t o = 0;
  for (; o + 4 <= p->no; o += 4) outer_rows(p, o, 4, first, second);
  for (; o < p->no; o++) outer_rows(p, o, 1, first, second);
}
static void outer_first(outer *p) { outer_all(p, 1, 0); }
static void outer_second(outer *p) { outer_all(p, 0, 1); }
static void outer_both(outer *p) { outer_all(p, 1, 1); }

/* ---- memory ---- */

static float *take(float **at, int64_t vectors) {
  float *here = *at;
  *at += vectors * VW;
  return here;
}
static void batch_of(const micak_mlp_loop *m, int64_t rows, float **at, batch *out) {
  for (int l = 0; l <= m->layers; l++) {
    out->a[l] = take(at, m->width[l] * rows);
    out->d[l] = take(at, m->width[l] * rows);
  }
  out->y = take(at, m->width[m->layers] * rows);
}
static void work_of(const micak_mlp_loop *m, float *at, work *w) {
  memset(w, 0, sizeof *w);
  w->m = m;
  for (int i = 0; i < 2 * m->layers; i++) {
    w->at[i] = w->params;
    w->params += mlp_count(m, i);
  }
  w->first = take(&at, w->params);
  w->kept = take(&at, w->params * (m->steps / m->stride));
  w->stretch = take(&at, w->params * (m->stride - 1));
  batch_of(m, m->R, &at, &w->support);
  batch_of(m, m->query.R, &at, &w->query);
  for (int l = 0; l <= m->layers; l++) {
    w->tangent[l] = take(&at, m->width[l] * m->R);
    w->dt[l] = take(&at, m->width[l] * m->R);
  }
  const int64_t most = m->R > m->query.R ? m->R : m->query.R;
  w->ones = take(&at, most);
  for (int64_t i = 0; i < most * VW; i++) w->ones[i] = 1;
}

static float *theta(const work *w, int64_t k) {
  const int64_t stride = w->m->stride;
  if (k == 0) return w->first;
  return k % stride ? w->stretch + (k % stride - 1) * w->params * VW : w->kept + (k / stride - 1) * w->params * VW;
}

/* where the tasks start; most often all at one place */
static void load_start(work *w) {
  const micak_mlp_loop *m = w->m;
  const float *from[2 * MOST];
  int shared = 1, same = 1;
  for (int i = 0; i < 2 * m->layers; i++) {
    from[i] = micak_task(&m->start[i], NULL, w->b);
    for (int64_t n = 1; n < w->lanes; n++) shared &= micak_task(&m->start[i], NULL, w->b + n) == from[i];
    same &= from[i] == w->seen[i];
  }
  if (shared && same) return;
  for (int i = 0; i < 2 * m->layers; i++) {
    float *to = w->first + w->at[i] * VW;
    const int64_t count = mlp_count(m, i);
    w->seen[i] = shared ? from[i] : NULL;
    for (int64_t k = 0; shared && k < count; k++) v_store(to + k * VW, v_set1(from[i] ? from[i][k] : 0));
    for (int64_t n = 0; !shared && n < VW; n++) {
      const float *one = n < w->lanes ? micak_task(&m->start[i], NULL, w->b + n) : NULL;
      for (int64_t k = 0; k < count; k++) to[k * VW + n] = one ? one[k] : 0;
    }
  }
}

static void load_batch(const work *w, const mica_wire *x, const mica_wire *y, const int32_t *offsets, int64_t R,
                       batch *out) {
  const micak_mlp_loop *m = w->m;
  const int64_t in = m->width[0], no = m->width[m->layers];
  float rows[VW];
  out->R = 0;
  for (int64_t n = 0; n < VW; n++) {
    out->count[n] = n < w->lanes ? micak_rows(offsets, w->b + n, R) : 0;
    rows[n] = (float)out->count[n];
    if (out->count[n] > out->R) out->R = out->count[n];
  }
  out->rows = v_load(rows);
  memset(out->a[0], 0, (size_t)(in * out->R * VW) * sizeof(float));
  memset(out->y, 0, (size_t)(no * out->R * VW) * sizeof(float));
  for (int64_t i = 0; m->labels && i < out->R * VW; i++) out->y[i] = -1;
  for (int64_t n = 0; n < w->lanes; n++) {
    const float *from = micak_task(x, offsets, w->b + n), *target = micak_task(y, offsets, w->b + n);
    const int32_t *label = (const void *)target;
    for (int64_t r = 0; r < out->count[n]; r++) {
      for (int64_t i = 0; from && i < in; i++) out->a[0][(i * out->R + r) * VW + n] = from[r * in + i];
      if (m->labels) out->y[r * VW + n] = label ? (float)label[r] : 0;
      else for (int64_t o = 0; target && o < no; o++) out->y[(o * out->R + r) * VW + n] = target[r * no + o];
    }
  }
}

static vf rate_of(const work *w, int param, int64_t step) {
  const micak_mlp_loop *m = w->m;
  float rate[VW] = { 0 };
  for (int64_t n = 0; mlp_count(m, param) && n < w->lanes; n++) {
    const float *at = micak_task(&m->rate[param], NULL, w->b + n);
    rate[n] = at ? at[step * m->rate_step[param]] : 0;
  }
  return v_load(rate);
}

/* a row of numbers of every task: row r of wires without offsets, zeros where there are none */
static vf numbers(const work *w, const mica_wire *wire, const int32_t *offsets, int64_t r, const batch *of) {
  float x[VW] = { 0 };
  for (int64_t n = 0; n < w->lanes; n++) {
    const float *at = r < of->count[n] ? micak_task(wire, offsets, w->b + n) : NULL;
    x[n] = at ? at[r] : 0;
  }
  return v_load(x);
}

/* ---- a network ---- */

/* values of every layer */
static void values(const work *w, const batch *t, const float *at) {
  const micak_mlp_loop *m = w->m;
  for (int l = 0; l < m->layers; l++) {
    product p = { .w = at + w->at[2 * l] * VW, .xt = t->a[l], .beta = v_set1(1), .sj = m->width[l], .sk = 1,
                  .nj = m->width[l + 1], .nk = m->width[l], .R = t->R, .after = l + 1 < m->layers ? VALUE : PLAIN,
                  .act = m->act, .y = t->a[l + 1] };
    if (m->bias[l]) p.bias = at + w->at[2 * l + 1] * VW;
    multiply(&p);
  }
}

/* cotangents of every layer's sums, from that of the last */
static void turn(const work *w, const batch *t, const float *at) {
  const micak_mlp_loop *m = w->m;
  for (int l = m->layers - 1; l > 0; l--) {
    product p = { .w = at + w->at[2 * l] * VW, .xt = t->d[l + 1], .sj = 1, .sk = m->width[l], .nj = m->width[l],
                  .nk = m->width[l + 1], .R = t->R, .after = SLOPE, .act = m->act, .a = t->a[l], .y = t->d[l] };
    multiply(&p);
  }
}

/* rows of a batch that a task does not have contribute nothing */
INLINE vf there(const batch *t, int64_t r, vf x) { return v_keep(v_lt(v_set1((float)r), t->rows), x); }
INLINE vf over_rows(const batch *t, float x) { return v_keep(v_gt(t->rows, v_zero()), x / t->rows); }
/* of the derivative of a row's loss, beside its residual */
INLINE float factor(const micak_mlp_loop *m) { return m->labels ? 1 : 2; }

/* losses of row r, and scale times the residual as the last cotangents: the sum of squares, or the cross entropy, when
 * values become probabilities */
static vf lose(const work *w, const batch *t, int64_t r, vf scale) {
  const int last = w->m->layers;
  const int64_t out = w->m->width[last], row = t->R * VW;
  const float *y = t->y + r * VW;
  float *a = t->a[last] + r * VW, *d = t->d[last] + r * VW;
  vf loss = v_zero();
  if (w->m->labels) {
    const vf label = v_load(y);
    loss = mlp_softmax(a, out, row, label);
    for (int64_t o = 0; o < out; o++) v_store(d + o * row, scale * mlp_residual(v_load(a + o * row), label, o));
    return loss;
  }
  for (int64_t o = 0; o < out; o++) {
    vf e = there(t, r, v_load(a + o * row) - v_load(y + o * row));
    loss = v_fma(e, e, loss);
    v_store(d + o * row, scale * e);
  }
  return loss;
}

/* values and cotangents on the support at theta_k; returns L of each task */
static vf gradient(const work *w, int64_t k) {
  const batch *t = &w->support;
  const vf scale = over_rows(t, factor(w->m));
  vf sum = v_zero();
  values(w, t, theta(w, k));
  for (int64_t r = 0; r < t->R; r++) sum += lose(w, t, r, scale);
  turn(w, t, theta(w, k));
  return over_rows(t, 1) * sum;
}

/* for each parameter of the network on a batch: one outer product; `set` is told which */
static outer outer_of(const work *w, const batch *t, int param, int what, float *to) {
  const int l = param / 2, bias = param % 2;
  return (outer){ .d = t->d[l + 1], .a = bias ? w->ones : t->a[l], .no = w->m->width[l + 1],
                  .ni = bias ? 1 : w->m->width[l], .R = t->R, .what = what, .to = to + w->at[param] * VW };
}

/* theta_(k+1) = theta_k - rate_k g */
static void descend(const work *w, int64_t k) {
  for (int i = 0; i < 2 * w->m->layers; i++) {
    if (!mlp_count(w->m, i)) continue;
    outer p = outer_of(w, &w->support, i, STEP, theta(w, k + 1));
    p.from = theta(w, k) + w->at[i] * VW;
    p.rate = rate_of(w, i, k);
    outer_first(&p);
  }
}

/* the query's loss at the last theta; `back`: u = its gradient times the seeds */
static void judge(work *w, int back) {
  const micak_mlp_loop *m = w->m;
  const micak_mlp_query *q = &m->query;
  const batch *t = &w->query;
  const int last = m->layers;
  const float *at = theta(w, m->steps);
  const vf part = v_set1(q->mean_out ? 1.0f / (float)m->width[last] : 1);
  const vf over = q->mean_rows ? over_rows(t, 1) : v_set1(1);
  vf seed = q->mean_rows ? numbers(w, &q->loss_d, NULL, 0, t) * over : v_zero(), sum = v_zero();
  float lane[VW];
  values(w, t, at);
  for (int64_t r = 0; r < t->R; r++) {
    if (!q->mean_rows && back) seed = numbers(w, &q->loss_d, q->offsets, r, t);
    const vf loss = part * lose(w, t, r, factor(m) * seed * part);
    sum += loss;
    v_store(lane, loss);
    for (int64_t n = 0; !q->mean_rows && n < w->lanes; n++) {
      float *to = r < t->count[n] ? micak_task(&q->loss, q->offsets, w->b + n) : NULL;
      if (to) to[r] = lane[n];
    }
  }
  v_store(lane, sum * over);
  for (int64_t n = 0; q->mean_rows && n < w->lanes; n++) {
    float *to = micak_task(&q->loss, NULL, w->b + n);
    if (to) *to = lane[n];
  }
  if (!back) return;
  turn(w, t, at);
  for (int i = 0; i < 2 * last; i++) {
    if (!mlp_count(m, i)) continue;
    outer p = outer_of(w, t, i, SET, w->u);
    outer_first(&p);
  }
}

/* tangents on the support along rate u: of values, and of cotangents */
static void move(const work *w, int64_t k) {
  const micak_mlp_loop *m = w->m;
  const batch *t = &w->support;
  const int last = m->layers;
  const float *at = theta(w, k);
  vf rate[2 * MOST];
  for (int i = 0; i < 2 * last; i++) rate[i] = rate_of(w, i, k);
  for (int l = 0; l < last; l++) {
    const int hidden = l + 1 < last;
    product p = { .u = w->u + w->at[2 * l] * VW, .x = t->a[l], .alpha = rate[2 * l], .beta = rate[2 * l + 1],
                  .sj = m->width[l], .sk = 1, .nj = m->width[l + 1], .nk = m->width[l], .R = t->R,
                  .after = hidden ? TANGENT : PLAIN, .act = m->act, .a = t->a[l + 1], .y = w->tangent[l + 1],
                  .z = w->dt[l + 1] };
    if (l) p.w = at + w->at[2 * l] * VW, p.xt = w->tangent[l];
    if (m->bias[l]) p.bias = w->u + w->at[2 * l + 1] * VW;
    multiply(&p);
  }
  const vf scale = over_rows(t, factor(m));
  for (int64_t r = 0; r < t->R; r++) {
    const int64_t row = t->R * VW, i = r * VW, out = m->width[last];
    if (m->labels) mlp_residual_tangent(t->a[last] + i, w->tangent[last] + i, out, row, scale, w->dt[last] + i);
    for (int64_t o = 0; !m->labels && o < out; o++)
      v_store(w->dt[last] + i + o * row, scale * there(t, r, v_load(w->tangent[last] + i + o * row)));
  }
  for (int l = last - 1; l > 0; l--) {
    product p = { .u = w->u + w->at[2 * l] * VW, .x = t->d[l + 1], .alpha = rate[2 * l],
                  .w = at + w->at[2 * l] * VW, .xt = w->dt[l + 1], .sj = 1, .sk = m->width[l], .nj = m->width[l],
                  .nk = m->width[l + 1], .R = t->R, .after = TURN, .act = m->act, .a = t->a[l], .d = t->d[l],
                  .y = w->dt[l] };
    multiply(&p);
  }
}

/* u <- u - H (rate u) + loss_d g at theta_k, whose values and cotangents are there */
static void step_back(work *w, int64_t k, int slopes) {
  const micak_mlp_loop *m = w->m;
  float loss[VW] = { 0 };
  for (int64_t n = 0; m->loss_d.data && n < w->lanes; n++) {
    const float *at = micak_task(&m->loss_d, NULL, w->b + n);
    loss[n] = at ? at[k] : 0;
  }
  if (!m->first_order) move(w, k);
  for (int i = 0; i < 2 * m->layers; i++) {
    if (!mlp_count(m, i)) continue;
    outer p = outer_of(w, &w->support, i, BACK, w->u);
    p.loss = v_load(loss), p.dt = w->dt[i / 2 + 1], p.at = i > 1 && i % 2 == 0 ? w->tangent[i / 2] : NULL;
    if (m->first_order) outer_first(&p);
    else if (slopes) outer_both(&p);
    else outer_second(&p);
    float slope[VW];
    v_store(slope, -p.slope);
    for (int64_t n = 0; m->rate_back && n < w->lanes; n++)
      m->rate_back[((w->b + n - m->back_first) * m->steps + k) * MICAK_MLP_PARAMS + i] = slope[n];
  }
}

static void steps_down(work *w) {
  const micak_mlp_loop *m = w->m;
  for (int64_t k = 0; k < m->steps; k++) {
    float value[VW];
    v_store(value, gradient(w, k));
    for (int64_t n = 0; m->loss.data && n < w->lanes; n++) {
      float *to = micak_task(&m->loss, NULL, w->b + n);
      if (to) to[k] = value[n];
    }
    descend(w, k);
  }
}

static void steps_up(work *w) {
  const micak_mlp_loop *m = w->m;
  const int slopes = m->rate_back || m->loss_d.data;
  if (m->first_order && !slopes) return;     /* u goes back as it is */
  int64_t at = m->steps - 1;                 /* whose values and cotangents are there */
  int64_t begins = at / m->stride * m->stride;
  for (; begins >= 0 && begins + m->stride > m->stop; begins -= m->stride) {
    int64_t end = begins + m->stride < m->steps ? begins + m->stride : m->steps;
    for (int64_t k = begins; end < m->steps && k + 1 < end; k++) {
      gradient(w, k);
      descend(w, k);
      at = k;
    }
    for (int64_t k = end - 1; k >= begins && k >= m->stop; k--) {
      if (at != k) gradient(w, k);
      at = k;
      step_back(w, k, slopes);
    }
  }
}

static mica_status run(const mica_exec *exec, const micak_mlp_loop *m, int64_t begin, int64_t count, int back) {
  work w;
  work_of(m, exec->scratch, &w);
  for (int64_t b = begin; b < begin + count; b += VW) {
    w.b = b, w.lanes = begin + count - b < VW ? begin + count - b : VW;
    load_start(&w);
    load_batch(&w, &m->x, &m->y, m->offsets, m->R, &w.support);
    load_batch(&w, &m->query.x, &m->query.y, m->query.offsets, m->query.R, &w.query);
    steps_down(&w);
    if (back) w.u = m->back + (b - m->back_first) * mlp_back_row(w.params);
    judge(&w, back);
    if (back) steps_up(&w);
  }
  return MICA_OK;
}

CPU_KERNEL(mlp_lanes_forward) { return run(exec, args, first, count, 0); }
CPU_KERNEL(mlp_lanes_both) { return run(exec, args, first, count, 1); }

/* n numbers from `at` on; a square of numbers and tasks at a time */
INLINE void sum_numbers(const micak_mlp_sum *s, int64_t at, int64_t n) {
  const int64_t end = s->first + s->tasks;
  vf sum = s->add ? v_load_n(s->to + at, n) : v_zero();
  for (int64_t t = s->first; t < end;) {
    const int64_t lane = t % VW, stop = end - t + lane < VW ? end - t + lane : VW;
    const float *from = s->from + t / VW * VW * mlp_back_row(s->params) + (s->at + at) * VW;
    vf x[VW];
    _Pragma("GCC unroll 16")
    for (int k = 0; k < VW; k++) x[k] = v_load(from + k * VW);
    v_transpose(x);
    if (stop - lane == VW && (t > s->first || s->add)) {
      _Pragma("GCC unroll 16")
      for (int k = 0; k < VW; k++) sum += x[k];
    } else {
      float rows[VW * VW] __attribute__((aligned(64)));
      memcpy(rows, x, sizeof rows);
      for (int64_t k = lane; k < stop; k++) {
        vf one = v_load(rows + k * VW);
        sum = k == lane && t == s->first && !s->add ? one : sum + one;
      }
    }
    t += stop - lane;
  }
  v_store_n(s->to + at, sum, n);
}
CPU_KERNEL(mlp_lanes_sum) {
  (void)exec;
  for (int64_t end = first + count; first < end; first += VW)
    sum_numbers(args, first, end - first < VW ? end - first : VW);
  return MICA_OK;
}
