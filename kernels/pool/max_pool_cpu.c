/* max_pool on the CPU: squares side by side, channels in lanes */
#include "common/isa.h"
#include "common/simd.h"
#include "pool/pool_internal.h"

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p, int64_t step, int64_t n) {
  return !p ? v_zero() : step != 1 ? v_load_strided(p, step, n) : n == VW ? v_load(p) : v_load_n(p, n);
}
INLINE void store(float *p, int64_t step, vf x, int64_t n, int add) {
  if (add) x += load(p, step, n);
  if (step != 1) v_store_strided(p, step, x, n);
  else if (n == VW) v_store(p, x);
  else v_store_n(p, x, n);
}

/* one image of a wire (B,T,h,w,c) */
typedef struct image { float *at; const int64_t *stride; int add; } image;
INLINE image image_of(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t t) {
  micak_plane p = micak_plane_rows(w, offsets, b);
  return (image){ p.at ? p.at + t * w->stride[0] : NULL, w->stride + 1, p.add };
}
INLINE float *place(const image *m, int64_t i, int64_t j, int64_t c) {
  return m->at ? m->at + i * m->stride[0] + j * m->stride[1] + c * m->stride[2] : NULL;
}

/* the largest of a square, and the number of its pixel in each lane */
INLINE vf largest(const image *x, int64_t window, int64_t p, int64_t q, int64_t c, int64_t n, vf *where) {
  vf best = load(place(x, p * window, q * window, c), x->stride[2], n), at = v_zero();
  for (int64_t k = 1; k < window * window; k++) {
    vf next = load(place(x, p * window + k / window, q * window + k % window, c), x->stride[2], n);
    vm more = v_gt(next, best);
    best = v_select(more, next, best);
    at = v_select(more, v_set1((float)k), at);
  }
  *where = at;
  return best;
}

INLINE void down(const mica_max_pool_args *a, int64_t b, int64_t t, const int tangent) {
  image x = image_of(&a->x.v, a->x.offsets, b, t), xt = image_of(&a->x.t, a->x.offsets, b, t);
  image y = image_of(tangent ? &a->y.t : &a->y.v, a->y.offsets, b, t);
  const int64_t window = a->window;
  if (!y.at) return;
  for (int64_t p = 0; p < a->P; p++)
    for (int64_t q = 0; q < a->Q; q++)
      for (int64_t c = 0; c < a->C; c += VW) {
        int64_t n = a->C - c < VW ? a->C - c : VW;
        vf at, value = largest(&x, window, p, q, c, n, &at);
        if (tangent) {
          value = v_zero();
          for (int64_t k = 0; xt.at && k < window * window; k++) {
            vf one = load(place(&xt, p * window + k / window, q * window + k % window, c), xt.stride[2], n);
            value = v_select(v_eq(at, v_set1((float)k)), one, value);
          }
        }
        store(place(&y, p, q, c), y.stride[2], value, n, y.add);
      }
}

INLINE void up(const mica_max_pool_args *a, int64_t b, int64_t t, const mica_wire *from, const mica_wire *to) {
  image x = image_of(&a->x.v, a->x.offsets, b, t), dy = image_of(from, a->y.offsets, b, t);
  image dx = image_of(to, a->x.offsets, b, t);
  const int64_t window = a->window;
  if (!dx.at) return;
  for (int64_t h = 0; h < a->H; h++)
    for (int64_t w = 0; w < a->W; w++) {
      if (h < a->P * window && w < a->Q * window) continue;
      for (int64_t c = 0; !dx.add && c < a->C; c++) *place(&dx, h, w, c) = 0;
    }
  for (int64_t p = 0; p < a->P; p++)
    for (int64_t q = 0; q < a->Q; q++)
      for (int64_t c = 0; c < a->C; c += VW) {
        int64_t n = a->C - c < VW ? a->C - c : VW;
        vf at, g = load(place(&dy, p, q, c), dy.stride[2], n);
        largest(&x, window, p, q, c, n, &at);
        for (int64_t k = 0; k < window * window; k++)
          store(place(&dx, p * window + k / window, q * window + k % window, c), dx.stride[2],
                v_keep(v_eq(at, v_set1((float)k)), g), n, dx.add);
      }
}

static mica_status forward_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  for (int64_t t = r0; t < r1; t++) down(args, b, t, 0);
  return MICA_OK;
}
static mica_status jvp_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  for (int64_t t = r0; t < r1; t++) down(args, b, t, 1);
  return MICA_OK;
}
static mica_status backward_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_max_pool_args *a = args;
  (void)scratch;
  for (int64_t t = r0; t < r1; t++) up(a, b, t, &a->y.d, &a->x.d);
  return MICA_OK;
}
static mica_status backward_jvp_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_max_pool_args *a = args;
  (void)scratch;
  for (int64_t t = r0; t < r1; t++) up(a, b, t, &a->y.td, &a->x.td);
  return MICA_OK;
}

#define IMAGES(face, FACE)                                                                                        \
  CPU_KERNEL(max_pool_##face) {                                                                                   \
    const mica_max_pool_args *a = args;                                                                           \
    return micak_walk_rows(pool_offsets(a), a->B, a->T, pool_sums(a, FACE), first, count, face##_images, args,    \
                           exec->scratch);                                                                        \
  }
IMAGES(forward, MICA_FORWARD)
IMAGES(jvp, MICA_JVP)
IMAGES(backward, MICA_BACKWARD)
IMAGES(backward_jvp, MICA_BACKWARD_JVP)
