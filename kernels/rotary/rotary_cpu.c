/* rotary on the CPU: row-local; the angles of a row are computed once for all its heads */
#include "common/columns.h"
#include "common/fixed_math.h"
#include "common/isa.h"
#include "common/rows.h"
#include "rotary/rotary.h"

/* scratch: D/2 frequencies (double), then cos, sin (D/2 each), one head in and one out (D each) */
typedef struct tables {
  double *frequency;
  float  *cosine, *sine, *in, *out;
} tables;
static tables tables_at(const mica_rotary_args *a, float *scratch) {
  int64_t half = a->D / 2;
  tables t = { .frequency = (double *)(void *)scratch, .cosine = scratch + 2 * half };
  t.sine = t.cosine + half, t.in = t.sine + half, t.out = t.in + a->D;
  return t;
}

static void turn_head(const mica_rotary_args *a, const tables *t, const float *x, float *y, float sign) {
  const int64_t half = a->D / 2;
  if (a->pairing == MICA_ROTARY_HALF) {
    for (int64_t k = 0; k < half; k += VW) {
      int64_t n = half - k < VW ? half - k : VW;
      vf c = micak_ld(t->cosine + k, n), s = micak_ld(t->sine + k, n) * sign;
      vf p = micak_ld(x + k, n), q = micak_ld(x + half + k, n);
      micak_st(y + k, p * c - q * s, n);
      micak_st(y + half + k, q * c + p * s, n);
    }
  } else {
    for (int64_t k = 0; k < half; k++) {
      float c = t->cosine[k], s = t->sine[k] * sign, p = x[2 * k], q = x[2 * k + 1];
      y[2 * k] = p * c - q * s;
      y[2 * k + 1] = q * c + p * s;
    }
  }
}

static mica_status turn(const mica_rotary_args *a, const mica_wire *in, const int32_t *in_offsets, const mica_wire *out,
                        const int32_t *out_offsets, float sign, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const int64_t half = a->D / 2;
  tables t = tables_at(a, scratch);
  micak_index_row position = micak_index_row_of(&a->position, b);
  for (int64_t r = r0; r < r1; r++) {
    double at = (double)(a->position.v.data ? micak_index_in(&position, r) : r);
    for (int64_t k = 0; k < half; k++) {
      double u = at * t.frequency[k], s, c;
      /* fixed_math's reduction is good to 1e5 radians */
      if (fabs(u) <= 1e5) micak_fixed_sincos(u, &s, &c);
      else s = sin(u), c = cos(u);
      t.cosine[k] = (float)c, t.sine[k] = (float)s;
    }
    for (int64_t h = 0; h < a->H; h++) {
      micak_plane x = micak_plane_at(in, in_offsets, b, in->stride[0], in->stride[2]);
      micak_plane y = micak_plane_at(out, out_offsets, b, out->stride[0], out->stride[2]);
      if (x.at) x.at += h * in->stride[1];
      if (y.at) y.at += h * out->stride[1];
      float *to = micak_row_out(&y, r, t.out);
      turn_head(a, &t, micak_row_in(&x, r, a->D, t.in), to, sign);
      micak_row_done(&y, r, a->D, to);
    }
  }
  return MICA_OK;
}

#define ENTRY(face, in, out, wire, bit, sign)                                                                          \
  static mica_status face##_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {                \
    const mica_rotary_args *a = args;                                                                                  \
    return turn(a, &a->in.wire, a->in.offsets, &a->out.wire, a->out.offsets, sign, b, r0, r1, scratch);                \
  }                                                                                                                    \
  CPU_KERNEL(rotary_##face) {                                                                                          \
    const mica_rotary_args *a = args;                                                                                  \
    const mica_port *outputs[] = { &a->out };                                                                          \
    tables t = tables_at(a, exec->scratch);                                                                            \
    for (int64_t k = 0; k < a->D / 2; k++) t.frequency[k] = pow(a->base, -2.0 * (double)k / (double)a->D);             \
    int sums = micak_ports_sum(outputs, 1, bit, a->B);                                                                 \
    return micak_walk_rows(a->x.offsets, a->B, a->R, sums, first, count, face##_rows, args, exec->scratch);            \
  }
ENTRY(forward, x, y, v, MICA_V, 1)
ENTRY(jvp, x, y, t, MICA_T, 1)
ENTRY(backward, y, x, d, MICA_D, -1)
ENTRY(backward_jvp, y, x, td, MICA_TD, -1)
