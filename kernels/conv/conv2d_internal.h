/* cuts and scratch of conv2d's kernels: kernels and tables must agree on them */
#ifndef MICA_KERNELS_CONV_INTERNAL_H
#define MICA_KERNELS_CONV_INTERNAL_H

#include "common/rows.h"
#include "conv/conv.h"

enum {
  CONV_SLACK = 64,    /* floats after each part of the scratch: whole vectors may be read beyond it */
  CONV_ROWS = 64      /* (kx, input channel) of a unit of w.d */
};

static inline const int32_t *conv_offsets(const mica_conv2d_args *a) {
  return a->x.offsets ? a->x.offsets : a->y.offsets;
}
static inline const mica_wire *conv_wire(const mica_port *port, int bit) {
  return micak_wire((mica_port *)(uintptr_t)port, bit);
}
/* columns of packed weights, and of sums of w.d: whole panels of every instruction set */
static inline int64_t conv_round(int64_t n) { return (n + 31) / 32 * 32; }
static inline int64_t conv_up(int64_t n) { return conv_round(n) + CONV_SLACK; }

/* do images of several tasks add up in what this face writes? */
static inline int conv_sums(const mica_conv2d_args *a, int face) {
  const mica_port *in[] = { &a->x }, *out[] = { &a->y };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  return micak_ports_sum(back ? in : out, 1, bit[face], a->B);
}

/* scratch of the image phases: two padded images, two packed weights, one image of results and the row it begins with */
typedef struct conv_scratch { int64_t image, weight, result; } conv_scratch;
static inline conv_scratch conv_scratch_of(const mica_conv2d_args *a, int back) {
  int64_t h = back ? a->H + a->K - 1 : a->H + 2 * a->pad, w = back ? a->W + a->K - 1 : a->W + 2 * a->pad;
  int64_t in = back ? a->O : a->I, out = back ? a->I : a->O, pixels = back ? a->H * a->W : a->P * a->Q;
  /* a run of pixels may end two behind the image */
  return (conv_scratch){ conv_up((h * w + 2 * (back ? 1 : a->stride)) * in), conv_up(a->K * a->K * in * conv_round(out)),
                         conv_up((pixels + 1) * out) };
}
/* scratch of the sums over images: one image of x (padded) and one of dy (gathered), a block of w.d */
static inline conv_scratch conv_param_scratch(const mica_conv2d_args *a) {
  return (conv_scratch){ conv_up((a->H + 2 * a->pad) * (a->W + 2 * a->pad) * a->I), conv_up(CONV_ROWS * conv_round(a->O)),
                         conv_up(a->P * a->Q * a->O) };
}

/* units of w.d: (group of tasks, ky, block of kx and input channels, which lie side by side); of b.d: a group */
typedef struct conv_cut {
  const mica_wire *w, *b;
  int64_t blocks, w_units, b_units;
} conv_cut;
static inline conv_cut conv_cut_of(const mica_conv2d_args *a, int face) {
  int bit = face == MICA_BACKWARD ? MICA_D : MICA_TD;
  conv_cut cut = { .w = conv_wire(&a->w, bit), .b = conv_wire(&a->b, bit) };
  cut.blocks = (a->K * a->I + CONV_ROWS - 1) / CONV_ROWS;
  cut.w_units = micak_groups(cut.w, a->B) * a->K * cut.blocks;
  cut.b_units = micak_groups(cut.b, a->B);
  return cut;
}

/* ---- CUDA ---- */

enum { CONV_CHUNK = 1024 };                  /* pixels of dy that a block adds up; it shows in the bits */

/* whole images of that many pixels, and the chunks of so many images */
static inline int64_t conv_chunk(const mica_conv2d_args *a) {
  int64_t pixels = a->P * a->Q, n = CONV_CHUNK / (pixels > 0 ? pixels : 1);
  return n < 1 ? 1 : n;
}
static inline int64_t conv_chunks(const mica_conv2d_args *a, int64_t images) {
  int64_t each = conv_chunk(a);
  return images > each ? (images + each - 1) / each : 1;
}
/* scratch of chunks where a slot group may have several: w's, then in the same place b's */
static inline size_t conv_sum_bytes(const mica_conv2d_args *a, const mica_wire *w, int64_t cells) {
  int64_t most = !w->slot && w->task_stride ? a->T : a->B * a->T;
  if (!w->data || conv_chunks(a, most) == 1) return 0;
  return (size_t)(2 * conv_chunks(a, a->B * a->T) * cells) * sizeof(float);
}
/* channels that are summed over, or O of w.d, fill the tensor cores. no word of rows: their number may depend on the other
 * tasks */
static inline int conv_fills(int64_t channels) { return channels >= 16; }
/* bytes of weights laid out for them */
static inline int64_t conv_packed_cells(int64_t K, int64_t in, int64_t out) {
  return conv_round(out) * K * K * conv_round(in);
}
static inline size_t conv_packed_bytes(const mica_conv2d_args *a, int back, int dual) {
  const mica_wire *w[2] = { &a->w.v, &a->w.t };
  size_t bytes = 0;
  if (!conv_fills(back ? a->O : a->I)) return 0;
  for (int n = 0; n < 1 + dual; n++)
    if (w[n]->data)
      bytes += (size_t)((w[n]->slot || w[n]->task_stride ? a->B : 1) * conv_packed_cells(a->K, a->I, a->O)) *
               mica_dtype_size(w[n]->dtype);
  return bytes;
}
static inline size_t conv_scratch_bytes(const mica_conv2d_args *a, int face) {
  int dual = face == MICA_JVP || face == MICA_BACKWARD_JVP, back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  size_t packed = conv_packed_bytes(a, back, dual);
  if (!back) return packed;
  int bit = face == MICA_BACKWARD ? MICA_D : MICA_TD;
  size_t w = conv_sum_bytes(a, conv_wire(&a->w, bit), a->O * a->I * a->K * a->K);
  size_t b = conv_sum_bytes(a, conv_wire(&a->b, bit), a->O);
  size_t sums = w > b ? w : b;
  return sums > packed ? sums : packed;      /* one after the other */
}

#endif
