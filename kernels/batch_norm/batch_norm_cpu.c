/* batch_norm and batch_norm_pool on the CPU: a unit is a block of channels of one task, channels in lanes. sums run over
 * the pixels of an image in float and over images in double. a task's images are larger than the second cache: one pass
 * begins with the images that the one before has left there, so that they go forth and back.
 *
 * batch_norm is the other one with squares of one pixel. `kind` is a constant everywhere. */
#include <math.h>

#include "batch_norm/batch_norm_internal.h"
#include "batch_norm/batch_norm_pool.h"
#include "common/isa.h"
#include "common/simd.h"

#define INLINE static inline __attribute__((always_inline))
enum { PARTS = BN_BLOCK / VW };              /* vectors of a block */
enum { POOLED = 1, DENSE = 2 };              /* DENSE: whole blocks of channels that lie side by side */

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

/* the pixels of an image and its squares */
typedef struct squares { int64_t H, W, size, P, Q; int relu; } squares;
INLINE squares squares_of(const mica_batch_norm_args *a, const int kind) {
  const mica_batch_norm_pool_args *all = (const mica_batch_norm_pool_args *)a;
  if (!(kind & POOLED)) return (squares){ 1, a->P, 1, 1, a->P, 0 };
  return (squares){ all->H, all->W, all->window, all->P, all->Q, all->act };
}

/* a block of channels of one task of a wire (B,T,P,C), or pooled (B,T,H,W,C) */
typedef struct field { float *at; int64_t image, line, pixel, step; int add; } field;
INLINE field field_of(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t c, const int kind) {
  micak_plane   p = micak_plane_rows(w, offsets, b);
  const int     pooled = kind & POOLED;
  const int64_t step = w->stride[pooled ? 3 : 2];
  return (field){ p.at ? p.at + c * step : NULL, w->stride[0], pooled ? w->stride[1] : 0, w->stride[pooled ? 2 : 1],
                  step, p.add };
}
INLINE float *place(const field *f, int64_t t, int64_t h, int64_t w) {
  return f->at ? f->at + t * f->image + h * f->line + w * f->pixel : NULL;
}
INLINE lanes pixel(const field *f, int64_t t, int64_t h, int64_t w, int64_t n, const int kind) {
  if (kind & DENSE) return load(f->at + t * f->image + h * f->line + w * f->pixel, 1, BN_BLOCK);
  return load(place(f, t, h, w), f->step, n);
}
INLINE void put(const field *f, int64_t t, int64_t h, int64_t w, int64_t n, lanes x, const int kind) {
  if (kind & DENSE) store(f->at + t * f->image + h * f->line + w * f->pixel, 1, BN_BLOCK, x, f->add);
  else store(place(f, t, h, w), f->step, n, x, f->add);
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
#define EACH_PIXEL                       \
  for (int64_t h = 0; h < q.H; h++)      \
    for (int64_t w = 0; w < q.W; w++)
#define EACH_SQUARE                      \
  for (int64_t r = 0; r < q.P; r++)      \
    for (int64_t s = 0; s < q.Q; s++)
/* sum of an expression of t, h, w into `total`; back: from the last image to the first */
#define SUM(total, T, back, term)                        \
  for (int64_t k = 0; k < (T); k++) {                    \
    const int64_t t = (back) ? (T) - 1 - k : k;          \
    lanes part = { { { 0 } } };                          \
    EACH_PIXEL { term }                                  \
    add_up(&total, part);                                \
  }

/* what square (r, s) takes: x and its tangent there, and the number of the pixel in each lane. sign: of w */
typedef struct taken { lanes x, xt, at; } taken;
INLINE lanes sign_of(lanes w) {
  LANES(w.v[i] = v_select(v_gt(w.v[i], v_zero()), v_set1(1), v_keep(v_gt(v_zero(), w.v[i]), v_set1(-1)));)
  return w;
}
INLINE taken take(const squares *q, const field *x, const field *xt, lanes sign, int64_t t, int64_t r, int64_t s,
                  int64_t n, const int tangent, const int kind) {
  taken one = { .x = pixel(x, t, r * q->size, s * q->size, n, kind) };
  if (tangent) one.xt = pixel(xt, t, r * q->size, s * q->size, n, kind);
  lanes best;
  LANES(best.v[i] = one.x.v[i] * sign.v[i]; one.at.v[i] = v_zero();)
  for (int64_t i0 = 0, k = 0; i0 < q->size; i0++)
    for (int64_t j = 0; j < q->size; j++, k++) {
      if (!k) continue;
      lanes next = pixel(x, t, r * q->size + i0, s * q->size + j, n, kind), other = next;
      if (tangent) other = pixel(xt, t, r * q->size + i0, s * q->size + j, n, kind);
      LANES(vf key = next.v[i] * sign.v[i];
            vm more = v_gt(key, best.v[i]);
            best.v[i] = v_select(more, key, best.v[i]);
            one.x.v[i] = v_select(more, next.v[i], one.x.v[i]);
            if (tangent) one.xt.v[i] = v_select(more, other.v[i], one.xt.v[i]);
            one.at.v[i] = v_select(more, v_set1((float)k), one.at.v[i]);)
    }
  return one;
}

INLINE void forward_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int kind) {
  const squares q = squares_of(a, kind);
  const int64_t T = rows_of(a, b), P = q.H * q.W, N = T * P;
  const field x = field_of(&a->x.v, a->x.offsets, b, c, kind), y = field_of(&a->y.v, a->y.offsets, b, c, kind);
  /* squares about a mean of the image's own, while it is in the second cache, then between images (Chan, Golub and
   * LeVeque 1983): sums over pixels of x, (x - own)^2, own, own^2 */
  sums total = { { 0 } }, square = { { 0 } }, own1 = { { 0 } }, own2 = { { 0 } };
  for (int64_t t = 0; t < T; t++) {
    lanes part = { { { 0 } } }, own, within = part;
    float middle[BN_BLOCK];
    EACH_PIXEL {
      lanes v = pixel(&x, t, h, w, n, kind);
      LANES(part.v[i] += v.v[i];)
    }
    LANES(own.v[i] = part.v[i] * (1.0f / (float)P); v_store(middle + i * VW, own.v[i]);)
    EACH_PIXEL {
      lanes v = pixel(&x, t, h, w, n, kind);
      LANES(vf e = v.v[i] - own.v[i]; within.v[i] = v_fma(e, e, within.v[i]);)
    }
    add_up(&total, part);
    add_up(&square, within);
    for (int i = 0; i < BN_BLOCK; i++) {
      const double m = (double)middle[i];
      own1.v[i] += (double)P * m, own2.v[i] += (double)P * m * m;
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
  lanes gain = weight(a, b, c, n), bias = cell(&a->b.v, b, c, n), sign = sign_of(gain);
  for (int64_t t = T - 1; t >= 0; t--)
    EACH_SQUARE {
      lanes v = kind & POOLED ? take(&q, &x, NULL, sign, t, r, s, n, 0, kind).x : pixel(&x, t, r, s, n, kind);
      LANES(v.v[i] = v_fma((v.v[i] - mean.v[i]) * rstd.v[i], gain.v[i], bias.v[i]);
            if ((kind & POOLED) && q.relu) v.v[i] = v_keep(v_gt(v.v[i], v_zero()), v.v[i]);)
      put(&y, t, r, s, n, v, kind);
    }
}

INLINE void jvp_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int kind) {
  const squares q = squares_of(a, kind);
  const int64_t T = rows_of(a, b), N = T * q.H * q.W;
  const field x = field_of(&a->x.v, a->x.offsets, b, c, kind), xt = field_of(&a->x.t, a->x.offsets, b, c, kind);
  const field y = field_of(&a->y.t, a->y.offsets, b, c, kind);
  lanes mean = cell(&a->mean.v, b, c, n), rstd = cell(&a->rstd.v, b, c, n), mean_t, rstd_t;
  sums total = { { 0 } }, moved = { { 0 } };
  SUM(total, T, 0, lanes v = pixel(&xt, t, h, w, n, kind); LANES(part.v[i] += v.v[i];))
  mean_t = of_sums(&total, N ? 1.0 / (double)N : 0);
  SUM(moved, T, 1, lanes v = pixel(&x, t, h, w, n, kind); lanes d = pixel(&xt, t, h, w, n, kind);
      LANES(part.v[i] = v_fma((v.v[i] - mean.v[i]) * rstd.v[i], d.v[i] - mean_t.v[i], part.v[i]);))
  lanes m = of_sums(&moved, N ? 1.0 / (double)N : 0);
  LANES(rstd_t.v[i] = -(rstd.v[i] * rstd.v[i] * m.v[i]);)
  put_cell(&a->mean.t, b, c, n, mean_t);
  put_cell(&a->rstd.t, b, c, n, rstd_t);
  if (!y.at) return;
  lanes gain = weight(a, b, c, n), gain_t = cell(&a->w.t, b, c, n), bt = cell(&a->b.t, b, c, n);
  lanes sign = sign_of(gain), bias = bt;
  if (kind & POOLED) bias = cell(&a->b.v, b, c, n);
  for (int64_t t = 0; t < T; t++)
    EACH_SQUARE {
      taken one;
      if (kind & POOLED) one = take(&q, &x, &xt, sign, t, r, s, n, 1, kind);
      else one.x = pixel(&x, t, r, s, n, kind), one.xt = pixel(&xt, t, r, s, n, kind);
      lanes v;
      LANES(vf e = (one.x.v[i] - mean.v[i]) * rstd.v[i];
            vf et = rstd.v[i] * v_fma(-e, m.v[i], one.xt.v[i] - mean_t.v[i]);
            v.v[i] = v_fma(et, gain.v[i], v_fma(e, gain_t.v[i], bt.v[i]));
            if ((kind & POOLED) && q.relu) v.v[i] = v_keep(v_gt(v_fma(e, gain.v[i], bias.v[i]), v_zero()), v.v[i]);)
      put(&y, t, r, s, n, v, kind);
    }
}

/* what the passes back know of a block */
typedef struct known {
  field x, xt, dy, dyt;
  lanes mean, rstd, mean_t, rstd_t, gain, bias, sign;
  sums d, e, d_t, e_t;                       /* of dy, dy h, and their tangents */
} known;

/* x, normalised, and its tangent */
INLINE void normal(const known *k, lanes x, lanes xt, const int tangent, lanes *e, lanes *et) {
  LANES(vf off = x.v[i] - k->mean.v[i];
        e->v[i] = off * k->rstd.v[i];
        if (tangent) et->v[i] = v_fma(xt.v[i] - k->mean_t.v[i], k->rstd.v[i], off * k->rstd_t.v[i]);)
}
/* cotangents of square (r, s), which its activation lets through where e was taken */
INLINE void cotangents(const known *k, const squares *q, lanes e, int64_t t, int64_t r, int64_t s, int64_t n,
                       const int tangent, const int kind, lanes *g, lanes *gt) {
  *g = pixel(&k->dy, t, r, s, n, kind);
  if (tangent) *gt = pixel(&k->dyt, t, r, s, n, kind);
  if (!(kind & POOLED) || !q->relu) return;
  LANES(vm on = v_gt(v_fma(e.v[i], k->gain.v[i], k->bias.v[i]), v_zero());
        g->v[i] = v_keep(on, g->v[i]);
        if (tangent) gt->v[i] = v_keep(on, gt->v[i]);)
}

INLINE void learn(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int tangent, const int kind,
                  known *k) {
  const squares q = squares_of(a, kind);
  const int64_t T = rows_of(a, b);
  memset(k, 0, sizeof *k);
  k->x = field_of(&a->x.v, a->x.offsets, b, c, kind), k->dy = field_of(&a->y.d, a->y.offsets, b, c, kind);
  k->mean = cell(&a->mean.v, b, c, n), k->rstd = cell(&a->rstd.v, b, c, n), k->gain = weight(a, b, c, n);
  if (tangent) {
    k->xt = field_of(&a->x.t, a->x.offsets, b, c, kind), k->dyt = field_of(&a->y.td, a->y.offsets, b, c, kind);
    k->mean_t = cell(&a->mean.t, b, c, n), k->rstd_t = cell(&a->rstd.t, b, c, n);
  }
  if (kind & POOLED) k->bias = cell(&a->b.v, b, c, n), k->sign = sign_of(k->gain);
  for (int64_t t = 0; t < T; t++) {
    lanes d = { { { 0 } } }, e = d, d_t = d, e_t = d, ht = d, h, g, gt = d;
    EACH_SQUARE {
      taken one;
      if (kind & POOLED) one = take(&q, &k->x, &k->xt, k->sign, t, r, s, n, tangent, kind);
      else {
        one.x = pixel(&k->x, t, r, s, n, kind), one.xt = one.x;
        if (tangent) one.xt = pixel(&k->xt, t, r, s, n, kind);
      }
      normal(k, one.x, one.xt, tangent, &h, &ht);
      cotangents(k, &q, h, t, r, s, n, tangent, kind, &g, &gt);
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

/* means of the cotangents, and what a pixel's is multiplied by */
typedef struct factors { lanes d, e, d_t, e_t, first, second; } factors;

/* the cotangent of pixel (h, w), to which g and gt come from its square */
INLINE void put_pixel(const known *k, const factors *f, const field *out, int64_t t, int64_t h, int64_t w, int64_t n,
                      lanes g, lanes gt, const int tangent, const int kind) {
  lanes x = pixel(&k->x, t, h, w, n, kind), xt = x, e, et = x;
  if (tangent) xt = pixel(&k->xt, t, h, w, n, kind);
  normal(k, x, xt, tangent, &e, &et);
  LANES(vf plain = v_fma(-e.v[i], f->e.v[i], g.v[i] - f->d.v[i]);
        if (!tangent) g.v[i] = f->first.v[i] * plain;
        else {
          vf moved = v_fma(-e.v[i], f->e_t.v[i], v_fma(-et.v[i], f->e.v[i], gt.v[i] - f->d_t.v[i]));
          g.v[i] = v_fma(f->first.v[i], plain, f->second.v[i] * moved);
        })
  put(out, t, h, w, n, g, kind);
}

INLINE void back_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int tangent,
                       const int kind) {
  const squares q = squares_of(a, kind);
  const int64_t T = rows_of(a, b), N = T * q.H * q.W;
  const mica_wire *to = tangent ? &a->x.td : &a->x.d;
  const field out = field_of(to, a->x.offsets, b, c, kind);
  const int face = tangent ? MICA_BACKWARD_JVP : MICA_BACKWARD, own = bn_by_product(a, face);
  if (!own && (!out.at || !N)) return;
  known k;
  learn(a, b, c, n, tangent, kind, &k);
  if (own) {
    put_cell(bn_param_wire(a, face, 0), b, c, n, of_sums(tangent ? &k.e_t : &k.e, 1));
    put_cell(bn_param_wire(a, face, 1), b, c, n, of_sums(tangent ? &k.d_t : &k.d, 1));
    if (!out.at || !N) return;
  }
  factors f;
  f.d = of_sums(&k.d, 1.0 / (double)N), f.e = of_sums(&k.e, 1.0 / (double)N), f.d_t = f.d, f.e_t = f.e;
  lanes gain_t = k.gain;
  if (tangent) {
    f.d_t = of_sums(&k.d_t, 1.0 / (double)N), f.e_t = of_sums(&k.e_t, 1.0 / (double)N);
    gain_t = cell(&a->w.t, b, c, n);
  }
  LANES(f.second.v[i] = k.rstd.v[i] * k.gain.v[i]; f.first.v[i] = f.second.v[i];
        if (tangent) f.first.v[i] = v_fma(k.rstd_t.v[i], k.gain.v[i], k.rstd.v[i] * gain_t.v[i]);)
  const lanes zero = { { { 0 } } };
  for (int64_t t = T - 1; t >= 0; t--) {
    EACH_SQUARE {
      lanes g, gt = zero;
      if (!(kind & POOLED)) {
        cotangents(&k, &q, zero, t, r, s, n, tangent, kind, &g, &gt);
        put_pixel(&k, &f, &out, t, r, s, n, g, gt, tangent, kind);
        continue;
      }
      taken one = take(&q, &k.x, NULL, k.sign, t, r, s, n, 0, kind);
      lanes e, et;
      normal(&k, one.x, zero, 0, &e, &et);
      cotangents(&k, &q, e, t, r, s, n, tangent, kind, &g, &gt);
      for (int64_t i0 = 0, at = 0; i0 < q.size; i0++)
        for (int64_t j = 0; j < q.size; j++, at++) {
          lanes part = g, part_t = gt;
          LANES(vm here = v_eq(one.at.v[i], v_set1((float)at));
                part.v[i] = v_keep(here, g.v[i]);
                if (tangent) part_t.v[i] = v_keep(here, gt.v[i]);)
          put_pixel(&k, &f, &out, t, r * q.size + i0, s * q.size + j, n, part, part_t, tangent, kind);
        }
    }
    if (!(kind & POOLED)) continue;
    for (int64_t h = 0; h < q.H; h++) /* pixels of no square */
      for (int64_t w = h < q.P * q.size ? q.Q * q.size : 0; w < q.W; w++)
        put_pixel(&k, &f, &out, t, h, w, n, zero, zero, tangent, kind);
  }
}

INLINE void backward_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int kind) {
  back_block(a, b, c, n, 0, kind);
}
INLINE void backward_jvp_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n, const int kind) {
  back_block(a, b, c, n, 1, kind);
}

typedef void (*block_fn)(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n);
static mica_status blocks(const mica_batch_norm_args *a, int face, int64_t first, int64_t count, block_fn block) {
  int64_t each = bn_blocks(a);
  int all = bn_sums(a, face);
  for (int64_t u = first; u < first + count; u++) {
    int64_t c = u % each * BN_BLOCK, n = a->C - c < BN_BLOCK ? a->C - c : BN_BLOCK;
    for (int64_t b = all ? 0 : u / each; b < (all ? a->B : u / each + 1); b++) block(a, b, c, n);
  }
  return MICA_OK;
}

/* w.d and b.d: sums of a group of tasks */
INLINE mica_status params(const mica_batch_norm_args *a, int face, const int tangent, const int kind, int64_t first,
                          int64_t count) {
  int64_t each = bn_blocks(a), w_units = bn_param_units(a, face, 0), together = bn_together(a, face);
  for (int64_t u = first; u < first + count; u++) {
    int bias = u >= w_units;
    int64_t unit = bias ? u - w_units : u, c = unit % each * BN_BLOCK, begin, end;
    int64_t n = a->C - c < BN_BLOCK ? a->C - c : BN_BLOCK;
    micak_group(bn_param_wire(a, face, bias), a->B, unit / each, &begin, &end);
    sums total[2] = { { { 0 } }, { { 0 } } };
    for (int64_t b = begin; b < end; b++) {
      known k;
      learn(a, b, c, n, tangent, kind, &k);
      const sums *s[] = { tangent ? &k.e_t : &k.e, tangent ? &k.d_t : &k.d };
      for (int p = 0; p < 2; p++)
        for (int i = 0; i < BN_BLOCK; i++) total[p].v[i] += s[p]->v[i];
    }
    for (int p = bias; p < (together ? 2 : bias + 1); p++)
      put_cell(bn_param_wire(a, face, p), begin, c, n, of_sums(&total[p], 1));
  }
  return MICA_OK;
}
/* do all images of a whole block lie densely? then it is the same loop without a question a load */
static int is_dense(const mica_batch_norm_args *a, int64_t b, int64_t c, const int kind, int face) {
  const int     back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const int     tangent = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  const mica_wire *y = back ? &a->y.d : tangent ? &a->y.t : &a->y.v, *x[5] = { &a->x.v };
  int n = 1;
  if (tangent) x[n++] = &a->x.t;
  if (back) x[n++] = tangent ? &a->x.td : &a->x.d;
  if (c + BN_BLOCK > a->C) return 0;
  for (int i = 0; i < n; i++) {
    const field f = field_of(x[i], a->x.offsets, b, c, kind);
    if (!f.at || f.step != 1) return 0;
  }
  const field f = field_of(y, a->y.offsets, b, c, kind), second = field_of(&a->y.td, a->y.offsets, b, c, kind);
  return f.at && f.step == 1 && (!back || !tangent || (second.at && second.step == 1));
}

#define BLOCK(op, kind, face, FACE)                                                                       \
  static void op##_##face##_block(const mica_batch_norm_args *a, int64_t b, int64_t c, int64_t n) {        \
    if (is_dense(a, b, c, kind, FACE)) face##_block(a, b, c, BN_BLOCK, (kind) | DENSE);                    \
    else face##_block(a, b, c, n, kind);                                                                   \
  }                                                                                                        \
  CPU_KERNEL(op##_##face) {                                                                                \
    (void)exec;                                                                                            \
    return blocks(args, FACE, first, count, op##_##face##_block);                                          \
  }
#define PARAMS(op, kind, face, FACE, tangent)                            \
  CPU_KERNEL(op##_##face##_params) {                                     \
    (void)exec;                                                          \
    return params(args, FACE, tangent, kind, first, count);              \
  }
#define FACES(op, kind)                              \
  BLOCK(op, kind, forward, MICA_FORWARD)             \
  BLOCK(op, kind, jvp, MICA_JVP)                     \
  BLOCK(op, kind, backward, MICA_BACKWARD)           \
  BLOCK(op, kind, backward_jvp, MICA_BACKWARD_JVP)   \
  PARAMS(op, kind, backward, MICA_BACKWARD, 0)       \
  PARAMS(op, kind, backward_jvp, MICA_BACKWARD_JVP, 1)
FACES(batch_norm, 0)
FACES(batch_norm_pool, POOLED)
