/* batch_norm on the CPU: a unit is a block of channels of one task, channels in lanes. sums run over the pixels of an
 * image in float and over images in double. a task's images are larger than the second cache: one pass begins with the
 * images that the one before has left there, so that they go forth and back. */
#include <math.h>

#include "batch_norm/batch_norm_internal.h"
#include "common/isa.h"
#include "common/simd.h"

#define INLINE static inline __attribute__((always_inline))
enum { PARTS = BN_BLOCK / VW };              /* vectors of a block */

typedef struct lanes { vf v[PARTS]; } lanes;
typedef struct sums { double v[BN_BLOCK]; } sums;

/* n numbers side by side or `step` apart */
INLINE lanes load(const float *p, int64_t step, int64_t n) {
  lanes x;
  for (int i = 0; i < PARTS; i++) {
    int64_t left = n - i * VW < 0 ? 0 : n - i * VW > VW ? VW : n - i * VW;
    x.v[i] = !p || !left ? v_zero() : step != 1 ? v_load_strided(p + i * VW * step, step, left)
             : left == VW ? v_load(p + i * VW) : v_load_n(p + i * VW, left);
  }
  return x;
}
INLINE void store(float *p, int64_t step, int64_t n, lanes x, int add) {
  if (add) {
    lanes old = load(p, step, n);
    for (int i = 0; i < PARTS; i++) x.v[i] += old.v[i];
  }
  for (int i = 0; i < PARTS; i++) {
    int64_t left = n - i * VW < 0 ? 0 : n - i * VW > VW ? VW : n - i * VW;
    if (!left) continue;
    if (step != 1) v_store_strided(p + i * VW * step, step, x.v[i], left);
    else if (left == VW) v_store(p + i * VW, x.v[i]);
    else v_store_n(p + i * VW, x.v[i], left);
  }
}
INLINE void add_up(sums *s, lanes x) {
  float lane[BN_BLOCK];
  for (int i = 0; i < PARTS; i++) v_store(lane + i * VW, x.v[i]);
  for (int i = 0; i < BN_BLOCK; i++) s->v[i] += (double)lane[i];
}
/* as float, times `factor` */
INLINE lanes of_sums(const sums *s, double factor) {
  float lane[BN_BLOCK];
  lanes x;
  for (int i = 0; i < BN_BLOCK; i++) lane[i] = (float)(s->v[i] * factor);
  for (int i = 0; i < PARTS; i++) x.v[i] = v_load(lane + i * VW);
  return x;
}

/* a block of channels of one task of a wire (B,T,P,C) */
typedef struct field { float *at; int64_t image, pixel, step; int add; } field;
INLINE field field_of(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t c) {
  micak_plane p = micak_plane_rows(w, offsets, b);
  return (field){ p.at ? p.at + c * w->stride[2] : NULL, w->stride[0], w->stride[1], w->stride[2], p.add };
}
INLINE lanes pixel(const field *f, int64_t t, int64_t s, int64_t n) {
  return load(f->at ? f->at + t * f->image + s * f->pixel : NULL, f->step, n);
}
/* of a wire (B,C) */
INLINE lanes cell(const mica_wire *w, int64_t b, int64_t c, int64_t n) {
  micak_plane p = micak_plane_param(w, b);
  return load(p.at ? p.at + c * p.col : NULL, p.col, n);
}
INLINE void put_cell(const mica_wire *w, int64_t b, int64_t c, int64_t n, lanes x) {
  micak_plane p = micak_plane_param(w, b);
  if (p.at) store(p.at + c * p.col, p.col, n, x, p.add);
}
INLINE lanes weight(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {
  lanes one;
  for (int i = 0; i < PARTS; i++) one.v[i] = v_set1(1);
  return a->w.v.data ? cell(&a->w.v, b, c, n) : one;
}
INLINE int64_t rows_of(const mica_batch_norm_args *a, int64_t b) {
  return micak_rows(a->x.offsets ? a->x.offsets : a->y.offsets, b, a->T);
}

#define LANES(...) for (int i = 0; i < PARTS; i++) { __VA_ARGS__ }
/* sum of an expression of t, s into `total`; back: from the last image to the first */
#define SUM(total, T, back, term)                        \
  for (int64_t k = 0; k < (T); k++) {                    \
    const int64_t t = (back) ? (T) - 1 - k : k;          \
    lanes part = { { { 0 } } };                          \
    for (int64_t s = 0; s < a->P; s++) { term }          \
    add_up(&total, part);                                \
  }

static void forward_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {
  const int64_t T = rows_of(a, b), N = T * a->P;
  const field x = field_of(&a->x.v, a->x.offsets, b, c), y = field_of(&a->y.v, a->y.offsets, b, c);
  /* squares about a mean of the image's own, while it is in the second cache, then between images (Chan, Golub and
   * LeVeque 1983): sums over pixels of x, (x - own)^2, own, own^2 */
  sums total = { { 0 } }, square = { { 0 } }, own1 = { { 0 } }, own2 = { { 0 } };
  for (int64_t t = 0; t < T; t++) {
    lanes part = { { { 0 } } }, own, within = part;
    float middle[BN_BLOCK];
    for (int64_t s = 0; s < a->P; s++) {
      lanes v = pixel(&x, t, s, n);
      LANES(part.v[i] += v.v[i];)
    }
    LANES(own.v[i] = part.v[i] * (1.0f / (float)a->P); v_store(middle + i * VW, own.v[i]);)
    for (int64_t s = 0; s < a->P; s++) {
      lanes v = pixel(&x, t, s, n);
      LANES(vf e = v.v[i] - own.v[i]; within.v[i] = v_fma(e, e, within.v[i]);)
    }
    add_up(&total, part);
    add_up(&square, within);
    for (int i = 0; i < BN_BLOCK; i++) {
      const double m = (double)middle[i];
      own1.v[i] += (double)a->P * m, own2.v[i] += (double)a->P * m * m;
    }
  }
  lanes mean = of_sums(&total, N ? 1.0 / (double)N : 0), rstd;
  for (int i = 0; i < BN_BLOCK; i++) {
    const double m = N ? total.v[i] / (double)N : 0;
    const double all = square.v[i] + own2.v[i] - 2 * m * own1.v[i] + (double)N * m * m;
    square.v[i] = N ? 1 / sqrt((all < 0 ? 0 : all) / (double)N + a->eps) : 1;
  }
  rstd = of_sums(&square, 1);
  put_cell(&a->mean.v, b, c, n, mean);
  put_cell(&a->rstd.v, b, c, n, rstd);
  if (!y.at) return;
  lanes w = weight(a, b, c, n), bias = cell(&a->b.v, b, c, n);
  for (int64_t t = T - 1; t >= 0; t--)
    for (int64_t s = 0; s < a->P; s++) {
      lanes v = pixel(&x, t, s, n);
      LANES(v.v[i] = v_fma((v.v[i] - mean.v[i]) * rstd.v[i], w.v[i], bias.v[i]);)
      store(y.at + t * y.image + s * y.pixel, y.step, n, v, y.add);
    }
}

static void jvp_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {
  const int64_t T = rows_of(a, b), N = T * a->P;
  const field x = field_of(&a->x.v, a->x.offsets, b, c), xt = field_of(&a->x.t, a->x.offsets, b, c);
  const field y = field_of(&a->y.t, a->y.offsets, b, c);
  lanes mean = cell(&a->mean.v, b, c, n), rstd = cell(&a->rstd.v, b, c, n), mean_t, rstd_t;
  sums total = { { 0 } }, moved = { { 0 } };
  SUM(total, T, 0, lanes v = pixel(&xt, t, s, n); LANES(part.v[i] += v.v[i];))
  mean_t = of_sums(&total, N ? 1.0 / (double)N : 0);
  SUM(moved, T, 1, lanes v = pixel(&x, t, s, n); lanes d = pixel(&xt, t, s, n);
      LANES(part.v[i] = v_fma((v.v[i] - mean.v[i]) * rstd.v[i], d.v[i] - mean_t.v[i], part.v[i]);))
  lanes q = of_sums(&moved, N ? 1.0 / (double)N : 0);
  LANES(rstd_t.v[i] = -(rstd.v[i] * rstd.v[i] * q.v[i]);)
  put_cell(&a->mean.t, b, c, n, mean_t);
  put_cell(&a->rstd.t, b, c, n, rstd_t);
  if (!y.at) return;
  lanes w = weight(a, b, c, n), wt = cell(&a->w.t, b, c, n), bt = cell(&a->b.t, b, c, n);
  for (int64_t t = 0; t < T; t++)
    for (int64_t s = 0; s < a->P; s++) {
      lanes v = pixel(&x, t, s, n), d = pixel(&xt, t, s, n);
      LANES(vf h = (v.v[i] - mean.v[i]) * rstd.v[i];
            vf ht = rstd.v[i] * v_fma(-h, q.v[i], d.v[i] - mean_t.v[i]);
            v.v[i] = v_fma(ht, w.v[i], v_fma(h, wt.v[i], bt.v[i]));)
      store(y.at + t * y.image + s * y.pixel, y.step, n, v, y.add);
    }
}

/* what the passes back know of a block */
typedef struct known {
  field x, xt, dy, dyt;
  lanes mean, rstd, mean_t, rstd_t;
  sums d, e, d_t, e_t;                       /* of dy, dy h, and their tangents */
} known;

/* h and its tangent at a pixel */
INLINE void h_at(const known *k, int64_t t, int64_t s, int64_t n, int tangent, lanes *h, lanes *ht) {
  lanes x = pixel(&k->x, t, s, n), xt = x;
  if (tangent) xt = pixel(&k->xt, t, s, n);
  LANES(vf off = x.v[i] - k->mean.v[i];
        h->v[i] = off * k->rstd.v[i];
        if (tangent) ht->v[i] = v_fma(xt.v[i] - k->mean_t.v[i], k->rstd.v[i], off * k->rstd_t.v[i]);)
}

INLINE void learn(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, int tangent, known *k) {
  const int64_t T = rows_of(a, b);
  memset(k, 0, sizeof *k);
  k->x = field_of(&a->x.v, a->x.offsets, b, c), k->dy = field_of(&a->y.d, a->y.offsets, b, c);
  k->mean = cell(&a->mean.v, b, c, n), k->rstd = cell(&a->rstd.v, b, c, n);
  if (tangent) {
    k->xt = field_of(&a->x.t, a->x.offsets, b, c), k->dyt = field_of(&a->y.td, a->y.offsets, b, c);
    k->mean_t = cell(&a->mean.t, b, c, n), k->rstd_t = cell(&a->rstd.t, b, c, n);
  }
  for (int64_t t = 0; t < T; t++) {
    lanes d = { { { 0 } } }, e = d, d_t = d, e_t = d, ht = d, h, gt = d;
    for (int64_t s = 0; s < a->P; s++) {
      lanes g = pixel(&k->dy, t, s, n);
      if (tangent) gt = pixel(&k->dyt, t, s, n);
      h_at(k, t, s, n, tangent, &h, &ht);
      LANES(d.v[i] += g.v[i]; e.v[i] = v_fma(g.v[i], h.v[i], e.v[i]);
            if (tangent) {
              d_t.v[i] += gt.v[i];
              e_t.v[i] = v_fma(gt.v[i], h.v[i], v_fma(g.v[i], ht.v[i], e_t.v[i]));
            })
    }
    add_up(&k->d, d);
    add_up(&k->e, e);
    if (tangent) add_up(&k->d_t, d_t), add_up(&k->e_t, e_t);
  }
}

INLINE void back_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int tangent) {
  const int64_t T = rows_of(a, b), N = T * a->P;
  const mica_wire *to = tangent ? &a->x.td : &a->x.d;
  const field out = field_of(to, a->x.offsets, b, c);
  const int face = tangent ? MICA_BACKWARD_JVP : MICA_BACKWARD, own = bn_by_product(a, face);
  if (!own && (!out.at || !N)) return;
  known k;
  learn(a, b, c, n, tangent, &k);
  if (own) {
    put_cell(bn_param_wire(a, face, 0), b, c, n, of_sums(tangent ? &k.e_t : &k.e, 1));
    put_cell(bn_param_wire(a, face, 1), b, c, n, of_sums(tangent ? &k.d_t : &k.d, 1));
    if (!out.at || !N) return;
  }
  lanes d = of_sums(&k.d, 1.0 / (double)N), e = of_sums(&k.e, 1.0 / (double)N), d_t = d, e_t = d, first, second;
  lanes w = weight(a, b, c, n), wt = w, gt = d, ht = d, h;
  if (tangent) {
    d_t = of_sums(&k.d_t, 1.0 / (double)N), e_t = of_sums(&k.e_t, 1.0 / (double)N);
    wt = cell(&a->w.t, b, c, n);
  }
  LANES(second.v[i] = k.rstd.v[i] * w.v[i]; first.v[i] = second.v[i];
        if (tangent) first.v[i] = v_fma(k.rstd_t.v[i], w.v[i], k.rstd.v[i] * wt.v[i]);)
  for (int64_t t = T - 1; t >= 0; t--)
    for (int64_t s = 0; s < a->P; s++) {
      lanes g = pixel(&k.dy, t, s, n);
      if (tangent) gt = pixel(&k.dyt, t, s, n);
      h_at(&k, t, s, n, tangent, &h, &ht);
      LANES(vf plain = v_fma(-h.v[i], e.v[i], g.v[i] - d.v[i]);
            if (!tangent) g.v[i] = first.v[i] * plain;
            else {
              vf moved = v_fma(-h.v[i], e_t.v[i], v_fma(-ht.v[i], e.v[i], gt.v[i] - d_t.v[i]));
              g.v[i] = v_fma(first.v[i], plain, second.v[i] * moved);
            })
      store(out.at + t * out.image + s * out.pixel, out.step, n, g, out.add);
    }
}
static void backward_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {
  back_block(a, b, c, n, 0);
}
static void backward_jvp_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {
  back_block(a, b, c, n, 1);
}

static mica_status blocks(const mica_batch_norm_args *a, int face, int64_t first, int64_t count,
                          void (*block)(const mica_batch_norm_args *, int64_t, int64_t, int64_t)) {
  int64_t each = bn_blocks(a);
  int all = bn_sums(a, face);
  for (int64_t u = first; u < first + count; u++) {
    int64_t c = u % each * BN_BLOCK, n = a->C - c < BN_BLOCK ? a->C - c : BN_BLOCK;
    for (int64_t b = all ? 0 : u / each; b < (all ? a->B : u / each + 1); b++) block(a, b, c, n);
  }
  return MICA_OK;
}

CPU_KERNEL(batch_norm_forward) {
  (void)exec;
  return blocks(args, MICA_FORWARD, first, count, forward_block);
}
CPU_KERNEL(batch_norm_jvp) {
  (void)exec;
  return blocks(args, MICA_JVP, first, count, jvp_block);
}
CPU_KERNEL(batch_norm_backward) {
  (void)exec;
  return blocks(args, MICA_BACKWARD, first, count, backward_block);
}
CPU_KERNEL(batch_norm_backward_jvp) {
  (void)exec;
  return blocks(args, MICA_BACKWARD_JVP, first, count, backward_jvp_block);
}

/* w.d and b.d: sums of a group of tasks */
INLINE mica_status params(const mica_batch_norm_args *a, int face, const int tangent, int64_t first, int64_t count) {
  int64_t each = bn_blocks(a), w_units = bn_param_units(a, face, 0), together = bn_together(a, face);
  for (int64_t u = first; u < first + count; u++) {
    int bias = u >= w_units;
    int64_t unit = bias ? u - w_units : u, c = unit % each * BN_BLOCK, begin, end;
    int64_t n = a->C - c < BN_BLOCK ? a->C - c : BN_BLOCK;
    micak_group(bn_param_wire(a, face, bias), a->B, unit / each, &begin, &end);
    sums total[2] = { { { 0 } }, { { 0 } } };
    for (int64_t b = begin; b < end; b++) {
      known k;
      learn(a, b, c, n, tangent, &k);
      const sums *s[] = { tangent ? &k.e_t : &k.e, tangent ? &k.d_t : &k.d };
      for (int p = 0; p < 2; p++)
        for (int i = 0; i < BN_BLOCK; i++) total[p].v[i] += s[p]->v[i];
    }
    for (int p = bias; p < (together ? 2 : bias + 1); p++)
      put_cell(bn_param_wire(a, face, p), begin, c, n, of_sums(&total[p], 1));
  }
  return MICA_OK;
}
CPU_KERNEL(batch_norm_backward_params) {
  (void)exec;
  return params(args, MICA_BACKWARD, 0, first, count);
}
CPU_KERNEL(batch_norm_backward_jvp_params) {
  (void)exec;
  return params(args, MICA_BACKWARD_JVP, 1, first, count);
}
