/* conv2d on the CPU. channels lie side by side, so that the terms of one ky are K I numbers in a row of the padded
 * image: a tile of PIXELS x COLUMNS sums adds broadcast numbers times vectors of packed weights. a tile is so many pixels
 * high because the weights come from the second cache. x.d is a convolution of the padded dy with the weights turned
 * round; w.d sums outer products over pixels. */
#include "common/isa.h"
#include "common/simd.h"
#include "common/simd_transpose.h"
#include "conv/conv2d_internal.h"

#define INLINE static inline __attribute__((always_inline))

#if defined(MICAK_ISA_AVX512)
enum { RUNS = 4 };                           /* of RUN pixels side by side */
#define EACH_RUNS(X) X(1) X(2) X(3) X(4)
#define EACH_PIXELS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
enum { RUNS = 2 };
#define EACH_RUNS(X) X(1) X(2)
#define EACH_PIXELS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
enum { RUN = 3, PIXELS = RUNS * RUN, NV = 2, COLUMNS = NV * VW };

/* ---- gathering and packing ---- */

INLINE vf load_part(const float *p, int64_t left) { return left >= VW ? v_load(p) : v_load_n(p, left < 0 ? 0 : left); }
INLINE void store_part(float *p, vf x, int64_t left) {
  if (left >= VW) v_store(p, x);
  else if (left > 0) v_store_n(p, x, left);
}

/* an image (h, w, c) of a wire: its first element, or NULL for zeros */
typedef struct image { float *at; const int64_t *stride; int add; } image;
INLINE image image_of(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t t) {
  micak_plane p = micak_plane_rows(w, offsets, b);
  return (image){ p.at ? p.at + t * w->stride[0] : NULL, w->stride + 1, p.add };
}
INLINE int is_dense(const image *m, int64_t w, int64_t c) {
  return m->stride[2] == 1 && m->stride[1] == c && m->stride[0] == w * c;
}

/* image (h, w, c) into `to` of `wide` pixels a row, every pixel `step` apart from (top, left) on; zeros around */
static void place(const image *m, int64_t h, int64_t w, int64_t c, float *to, int64_t high, int64_t wide, int64_t step,
                  int64_t top, int64_t left) {
  memset(to, 0, (size_t)(high * wide * c) * sizeof *to);
  if (!m->at) return;
  for (int64_t i = 0; i < h; i++) {
    const float *from = m->at + i * m->stride[0];
    float *row = to + ((top + i * step) * wide + left) * c;
    if (step == 1 && m->stride[2] == 1 && m->stride[1] == c) {
      memcpy(row, from, (size_t)(w * c) * sizeof *row);
      continue;
    }
    for (int64_t j = 0; j < w; j++)
      for (int64_t k = 0; k < c; k++) row[j * step * c + k] = from[j * m->stride[1] + k * m->stride[2]];
  }
}

/* w of task b as panels of COLUMNS outputs, zeros beyond the last: [ky][kx][i][COLUMNS]; `turned`: the inputs are the
 * outputs of the turned kernel. taps that lie side by side are turned over VW x VW at a time */
static void pack(const mica_conv2d_args *a, const mica_wire *wire, int64_t b, int turned, float *to) {
  const int64_t K = a->K, taps = K * K, in = turned ? a->O : a->I, out = turned ? a->I : a->O;
  const float *at = micak_task(wire, NULL, b);
  const int64_t s_in = wire->stride[turned ? 0 : 1], s_out = wire->stride[turned ? 1 : 0];
  const int square = wire->stride[3] == 1 && wire->stride[2] == K;
  const int64_t run = square && s_in == taps ? in : 1; /* inputs whose taps follow one another */
  for (int64_t j = 0; j < out; j += VW) {
    const int64_t n = out - j < VW ? out - j : VW;
    float *panel = to + j / COLUMNS * taps * in * COLUMNS + j % COLUMNS;
    for (int64_t i = 0; i < in; i += run) {
      const float *from = at + i * s_in + j * s_out;
      int64_t input = i, tap = 0;
      for (int64_t e = 0, left = run * taps; left > 0; e += VW, left -= VW) {
        const int64_t count = left < VW ? left : VW;
        vf x[VW];
        for (int r = 0; r < VW; r++)
          x[r] = r >= n ? v_zero() : square ? load_part(from + r * s_out + e, count) : v_zero();
        for (int c = 0; !square && c < count; c++)
          for (int r = 0; r < n; r++)
            x[r][c] = from[r * s_out + (e + c) / K * wire->stride[2] + (e + c) % K * wire->stride[3]];
        v_transpose(x);
        for (int c = 0; c < count; c++) {
          v_store(panel + ((turned ? taps - 1 - tap : tap) * in + input) * COLUMNS, x[c]);
          if (++tap == taps) tap = 0, input++;
        }
      }
    }
  }
}

/* ---- tiles ---- */

/* RUN pixels of a row, of which [skip, n) are wanted: the last run of a row begins sooner rather than end beyond it */
typedef struct run {
  const float *x;       /* the first pixel's first term */
  float *y;
  int64_t skip, n;
} run;
/* runs (pixels, out columns) += K rows of `terms` numbers times a panel of weights */
typedef struct tile_job {
  run run[RUNS];
  int64_t step, down;   /* to the next pixel, to the next row of terms */
  int64_t begin, end, terms; /* rows of terms that are not all zeros around the image */
  const float *w;       /* the panel */
  int64_t out, left;    /* floats from pixel to pixel of y; columns that are left */
  const float *start;   /* what sums begin with; NULL: with what y holds */
} tile_job;

INLINE float *pixel_of(const tile_job *j, int p) {
  const run *r = &j->run[p / RUN];
  return p % RUN >= r->skip && p % RUN < r->n ? r->y + p % RUN * j->out : NULL;
}

INLINE void tile(const tile_job *j, const int runs, const int nv) {
  vf sum[PIXELS][NV];
  for (int p = 0; p < runs * RUN; p++) {
    const float *y = j->start ? j->start : pixel_of(j, p);
    for (int v = 0; v < nv; v++) sum[p][v] = y ? load_part(y + v * VW, j->left - v * VW) : v_zero();
  }
  const float *w = j->w + j->begin * j->terms * COLUMNS;
  for (int64_t r = j->begin; r < j->end; r++) {
    const float *x[RUNS];
    for (int i = 0; i < runs; i++) x[i] = j->run[i].x + r * j->down;
    for (int64_t k = 0; k < j->terms; k++, w += COLUMNS) {
      vf wv[NV];
      for (int v = 0; v < nv; v++) wv[v] = v_load(w + v * VW);
      for (int p = 0; p < runs * RUN; p++) {
        vf xv = v_set1(x[p / RUN][p % RUN * j->step + k]);
        for (int v = 0; v < nv; v++) sum[p][v] = v_fma(xv, wv[v], sum[p][v]);
      }
    }
  }
  for (int p = 0; p < runs * RUN; p++) {
    float *y = pixel_of(j, p);
    if (!y) continue;
    for (int v = 0; v < nv; v++) store_part(y + v * VW, sum[p][v], j->left - v * VW);
  }
}

#define TILES(n)                                                   \
  static void tile_##n##_1(const tile_job *j) { tile(j, n, 1); } \
  static void tile_##n##_2(const tile_job *j) { tile(j, n, 2); }
EACH_RUNS(TILES)
#define TILE_ROW(n) { tile_##n##_1, tile_##n##_2 },
static void (*const tiles[RUNS][2])(const tile_job *) = { EACH_RUNS(TILE_ROW) };

/* an image of results (p, q, out) = start, or what it holds, + the image `x` of `wide` pixels a row (in channels), whose
 * rows before `top` and from `bottom` on are zeros, with packed weights. where q is below RUN, pixels behind the image are
 * read, and thrown away */
static void convolve(const float *x, int64_t wide, int64_t top, int64_t bottom, int64_t in, const float *w, int64_t K,
                     int64_t stride, const float *start, float *y, int64_t p, int64_t q, int64_t out) {
  tile_job j = { .step = stride * in, .down = wide * in, .terms = K * in, .w = w, .out = out };
  for (int64_t c = 0; c < out; c += COLUMNS, j.w += K * K * in * COLUMNS) {
    int n = 0;
    j.left = out - c, j.start = start ? start + c : NULL;
    for (int64_t i = 0; i < p; i++)
      for (int64_t k = 0; k < q; k += RUN) {
        const int64_t at = k + RUN <= q || q < RUN ? k : q - RUN, above = top - i * stride, below = bottom - i * stride;
        if (n == 0) j.end = below < 0 ? 0 : below < K ? below : K; /* of the first run's row; of the last one's: */
        j.begin = above < 0 ? 0 : above < j.end ? above : j.end;
        j.run[n++] = (run){ x + (i * stride * wide + at * stride) * in, y + (i * q + at) * out + c, k - at,
                            q - at < RUN ? q - at : RUN };
        if (n < RUNS && (i + 1 < p || k + RUN < q)) continue;
        tiles[n - 1][j.left > VW](&j);
        n = 0;
      }
  }
}

/* ---- images: forward and jvp; x.d and x.td ---- */

/* where to sum an image of results: in place where nothing is added to what is there */
INLINE float *result_of(const image *m, int64_t w, int64_t c, float *buffer) {
  return !m->add && is_dense(m, w, c) ? m->at : buffer;
}
static void result_done(const image *m, int64_t h, int64_t w, int64_t c, const float *from) {
  if (from == m->at) return;
  for (int64_t i = 0; i < h; i++)
    for (int64_t j = 0; j < w; j++) {
      float *to = m->at + i * m->stride[0] + j * m->stride[1];
      const float *row = from + (i * w + j) * c;
      if (m->add)
        for (int64_t k = 0; k < c; k++) to[k * m->stride[2]] += row[k];
      else
        for (int64_t k = 0; k < c; k++) to[k * m->stride[2]] = row[k];
    }
}

/* products of one image: out = sum of in[s] * weights[s] */
typedef struct product { const mica_wire *x, *w; } product;

INLINE mica_status images(const mica_conv2d_args *a, int64_t b, int64_t r0, int64_t r1, float *scratch, int back,
                          const product *list, int n, const mica_wire *bias, const mica_wire *out) {
  const int64_t K = a->K, in = back ? a->O : a->I, outs = back ? a->I : a->O;
  const int64_t ph = back ? a->H : a->P, pw = back ? a->W : a->Q, stride = back ? 1 : a->stride;
  const int64_t high = back ? a->H + K - 1 : a->H + 2 * a->pad, wide = back ? a->W + K - 1 : a->W + 2 * a->pad;
  const conv_scratch size = conv_scratch_of(a, back);
  const int32_t *in_offsets = back ? a->y.offsets : a->x.offsets, *out_offsets = back ? a->x.offsets : a->y.offsets;
  float *padded = scratch, *packed[2] = { scratch + size.image, scratch + size.image + size.weight };
  float *buffer = scratch + size.image + 2 * size.weight;
  if (!micak_task(out, out_offsets, b)) return MICA_OK;
  int used[2];
  for (int s = 0; s < n; s++) {
    used[s] = micak_task(list[s].w, NULL, b) && micak_task(list[s].x, in_offsets, b);
    if (used[s]) pack(a, list[s].w, b, back, packed[s]);
  }
  micak_plane from = { NULL, 0, 0, 0 };
  if (bias) from = micak_plane_param(bias, b);
  float *row = buffer + ph * pw * outs;
  for (int64_t c = 0; c < outs; c++) row[c] = from.at ? from.at[c * from.col] : 0;
  for (int64_t t = r0; t < r1; t++) {
    image to = image_of(out, out_offsets, b, t);
    float *y = result_of(&to, pw, outs, buffer);
    const float *start = row;
    for (int s = 0; s < n; s++) {
      if (!used[s]) continue;
      image x = image_of(list[s].x, in_offsets, b, t);
      const float *from_x = padded;
      const int64_t top = back ? K - 1 - a->pad : a->pad, bottom = top + (back ? (a->P - 1) * a->stride + 1 : a->H);
      if (back) place(&x, a->P, a->Q, in, padded, high, wide, a->stride, top, top);
      else if (a->pad || pw < RUN || !is_dense(&x, wide, in)) place(&x, a->H, a->W, in, padded, high, wide, 1, top, top);
      else from_x = x.at;
      convolve(from_x, wide, top, bottom, in, packed[s], K, stride, start, y, ph, pw, outs);
      start = NULL;
    }
    for (int64_t p = 0; start && p < ph * pw; p++) memcpy(y + p * outs, row, (size_t)outs * sizeof *y);
    result_done(&to, ph, pw, outs, y);
  }
  return MICA_OK;
}

static mica_status forward_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->x.v, &a->w.v } };
  return images(a, b, r0, r1, scratch, 0, list, 1, &a->b.v, &a->y.v);
}
static mica_status jvp_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->x.t, &a->w.v }, { &a->x.v, &a->w.t } };
  return images(a, b, r0, r1, scratch, 0, list, 2, &a->b.t, &a->y.t);
}
static mica_status backward_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->y.d, &a->w.v } };
  return images(a, b, r0, r1, scratch, 1, list, 1, NULL, &a->x.d);
}
static mica_status backward_jvp_images(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->y.td, &a->w.v }, { &a->y.d, &a->w.t } };
  return images(a, b, r0, r1, scratch, 1, list, 2, NULL, &a->x.td);
}

#define IMAGES(face, FACE)                                                                                         \
  CPU_KERNEL(conv2d_##face) {                                                                                      \
    const mica_conv2d_args *a = args;                                                                              \
    return micak_walk_rows(conv_offsets(a), a->B, a->T, conv_sums(a, FACE), first, count, face##_images, args,     \
                           exec->scratch);                                                                         \
  }
IMAGES(forward, MICA_FORWARD)
IMAGES(jvp, MICA_JVP)
IMAGES(backward, MICA_BACKWARD)
IMAGES(backward_jvp, MICA_BACKWARD_JVP)

/* ---- sums over images: w.d and b.d, w.td and b.td ---- */

/* block (rows, COLUMNS outputs; of few rows twice as many) of sums += outer products over `lines` rows of n pixels */
typedef struct outer_job {
  const float *x, *dy;
  int64_t x_step, dy_step, n, x_line, dy_line, lines;
  float *sum;
  int64_t wide;
} outer_job;
INLINE void outer(const outer_job *j, const int rows, const int nv) {
  vf sum[PIXELS][2 * NV];
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < nv; v++) sum[i][v] = v_load(j->sum + i * j->wide + v * VW);
  for (int64_t l = 0; l < j->lines; l++) {
    const float *x = j->x + l * j->x_line, *dy = j->dy + l * j->dy_line;
    for (int64_t p = 0; p < j->n; p++, x += j->x_step, dy += j->dy_step) {
      vf d[2 * NV];
      for (int v = 0; v < nv; v++) d[v] = v_load(dy + v * VW);
      for (int i = 0; i < rows; i++) {
        vf xv = v_set1(x[i]);
        for (int v = 0; v < nv; v++) sum[i][v] = v_fma(xv, d[v], sum[i][v]);
      }
    }
  }
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < nv; v++) v_store(j->sum + i * j->wide + v * VW, sum[i][v]);
}
#define OUTERS(n)                                                    \
  static void outer_##n##_1(const outer_job *j) { outer(j, n, 1); } \
  static void outer_##n##_2(const outer_job *j) { outer(j, n, 2); } \
  static void outer_##n##_4(const outer_job *j) { outer(j, n, 2 * n <= PIXELS ? 2 * NV : NV); }
EACH_PIXELS(OUTERS)
#define OUTER_ROW(n) { outer_##n##_1, outer_##n##_2, outer_##n##_4 },
static void (*const outers[PIXELS][3])(const outer_job *) = { EACH_PIXELS(OUTER_ROW) };

/* rows and all outputs of a job */
static void outer_all(outer_job j, int64_t rows, int64_t out) {
  const int64_t blocks = (rows + PIXELS - 1) / PIXELS, each = (rows + blocks - 1) / blocks; /* none much thinner */
  const outer_job all = j;
  for (int64_t i = 0; i < rows; i += each) {
    const int64_t n = rows - i < each ? rows - i : each;
    for (int64_t o = 0, width; o < out; o += width) {
      width = 2 * n <= PIXELS && out - o >= 2 * COLUMNS ? 2 * COLUMNS : COLUMNS;
      j.x = all.x + i, j.dy = all.dy + o, j.sum = all.sum + i * j.wide + o;
      outers[n - 1][width > COLUMNS ? 2 : out - o > VW](&j);
    }
  }
}

/* the image in place where it is dense, else gathered; NULL: zeros. lanes beyond the last column of the last pixel are
 * read, and thrown away: only a gathered image has room for them */
static const float *gather(const image *m, int64_t h, int64_t w, int64_t c, int whole, float *buffer) {
  if (!m->at) return NULL;
  if (!whole && is_dense(m, w, c)) return m->at;
  place(m, h, w, c, buffer, h, w, 1, 0, 0);
  return buffer;
}

/* rows [r0, r1) of (kx, input channel) of one ky. x without zeros around: each kx its own columns of dy */
static void add_image(const mica_conv2d_args *a, const float *x, const float *dy, int64_t ky, int64_t r0, int64_t r1,
                      float *sum) {
  const int64_t s = a->stride, down = ky - a->pad;
  /* outputs whose input row p s + down, and column q s + shift, lie in the image */
  int64_t p0 = down < 0 ? (-down + s - 1) / s : 0, p1 = a->H - 1 - down < 0 ? 0 : (a->H - 1 - down) / s + 1;
  if (p1 > a->P) p1 = a->P;
  if (p0 >= p1) return;
  for (int64_t r = r0, end; r < r1; r = end) {
    const int64_t kx = r / a->I, shift = kx - a->pad;
    end = (kx + 1) * a->I < r1 ? (kx + 1) * a->I : r1;
    int64_t q0 = shift < 0 ? (-shift + s - 1) / s : 0, q1 = a->W - 1 - shift < 0 ? 0 : (a->W - 1 - shift) / s + 1;
    if (q1 > a->Q) q1 = a->Q;
    if (q0 >= q1) continue;
    outer_all((outer_job){ x + ((p0 * s + down) * a->W + q0 * s + shift) * a->I + r % a->I, dy + (p0 * a->Q + q0) * a->O,
                           s * a->I, a->O, q1 - q0, s * a->W * a->I, a->Q * a->O, p1 - p0,
                           sum + (r - r0) * conv_round(a->O), conv_round(a->O) }, end - r, a->O);
  }
}
/* the same of an image with its zeros, in which all kx of a pixel lie side by side */
static void add_padded(const mica_conv2d_args *a, const float *x, const float *dy, int64_t ky, int64_t r0, int64_t r1,
                       float *sum) {
  const int64_t s = a->stride, wide = a->W + 2 * a->pad;
  outer_all((outer_job){ x + ky * wide * a->I + r0, dy, s * a->I, a->O, a->Q, s * wide * a->I, a->Q * a->O, a->P, sum,
                         conv_round(a->O) }, r1 - r0, a->O);
}

static void weight_unit(const mica_conv2d_args *a, const conv_cut *cut, int64_t unit, const product *list, int n,
                        float *scratch) {
  const conv_scratch size = conv_param_scratch(a);
  const int64_t ky = unit / cut->blocks % a->K, g = unit / (cut->blocks * a->K), wide = conv_round(a->O), pad = a->pad;
  const int64_t r0 = unit % cut->blocks * CONV_ROWS, r1 = r0 + CONV_ROWS < a->K * a->I ? r0 + CONV_ROWS : a->K * a->I;
  const int pads = pad && a->I < PIXELS;     /* few channels: zeros around cost less than thin blocks */
  int64_t begin, end;
  micak_group(cut->w, a->B, g, &begin, &end);
  float *to = micak_task(cut->w, NULL, begin);
  if (!to) return;
  float *x_buffer = scratch, *sum = scratch + size.image, *dy_buffer = sum + size.weight;
  memset(sum, 0, (size_t)((r1 - r0) * wide) * sizeof *sum);
  const int fits = a->O % VW == 0;
  for (int64_t b = begin; b < end; b++) {
    int64_t rows = micak_rows(conv_offsets(a), b, a->T);
    for (int64_t t = 0; t < rows; t++)
      for (int s = 0; s < n; s++) {
        image xm = image_of(list[s].x, a->x.offsets, b, t), dm = image_of(list[s].w, a->y.offsets, b, t);
        const float *dy = xm.at ? gather(&dm, a->P, a->Q, a->O, !fits, dy_buffer) : NULL;
        if (!dy) continue;
        const float *x = x_buffer;
        if (pads) place(&xm, a->H, a->W, a->I, x_buffer, a->H + 2 * pad, a->W + 2 * pad, 1, pad, pad);
        else x = gather(&xm, a->H, a->W, a->I, 0, x_buffer);
        if (pads || !pad) add_padded(a, x, dy, ky, r0, r1, sum);
        else add_image(a, x, dy, ky, r0, r1, sum);
      }
  }
  int add = cut->w->flags & MICA_ADD;
  for (int64_t r = r0; r < r1; r++)
    for (int64_t o = 0; o < a->O; o++) {
      const int64_t *stride = cut->w->stride;
      float *at = to + o * stride[0] + r % a->I * stride[1] + ky * stride[2] + r / a->I * stride[3];
      float value = sum[(r - r0) * wide + o];
      *at = add ? *at + value : value;
    }
}

static void bias_unit(const mica_conv2d_args *a, const conv_cut *cut, int64_t g, const mica_wire *dy, float *scratch) {
  int64_t begin, end;
  micak_group(cut->b, a->B, g, &begin, &end);
  micak_plane to = micak_plane_param(cut->b, begin);
  if (!to.at) return;
  float *sum = scratch;
  memset(sum, 0, (size_t)a->O * sizeof *sum);
  for (int64_t b = begin; b < end; b++) {
    int64_t rows = micak_rows(conv_offsets(a), b, a->T);
    for (int64_t t = 0; t < rows; t++) {
      image m = image_of(dy, a->y.offsets, b, t);
      if (!m.at) continue;
      for (int64_t p = 0; p < a->P; p++)
        for (int64_t q = 0; q < a->Q; q++) {
          const float *row = m.at + p * m.stride[0] + q * m.stride[1];
          if (m.stride[2] == 1)
            for (int64_t o = 0; o < a->O; o++) sum[o] += row[o];
          else
            for (int64_t o = 0; o < a->O; o++) sum[o] += row[o * m.stride[2]];
        }
    }
  }
  micak_row_done(&to, 0, a->O, sum);
}

INLINE mica_status params(const mica_exec *exec, const mica_conv2d_args *a, int face, const product *list, int n,
                          const mica_wire *dy, int64_t first, int64_t count) {
  conv_cut cut = conv_cut_of(a, face);
  for (int64_t u = first; u < first + count; u++) {
    if (u < cut.w_units) weight_unit(a, &cut, u, list, n, exec->scratch);
    else bias_unit(a, &cut, u - cut.w_units, dy, exec->scratch);
  }
  return MICA_OK;
}

/* product.w is dy here */
CPU_KERNEL(conv2d_backward_params) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->x.v, &a->y.d } };
  return params(exec, a, MICA_BACKWARD, list, 1, &a->y.d, first, count);
}
CPU_KERNEL(conv2d_backward_jvp_params) {
  const mica_conv2d_args *a = args;
  const product list[] = { { &a->x.v, &a->y.td }, { &a->x.t, &a->y.d } };
  return params(exec, a, MICA_BACKWARD_JVP, list, 2, &a->y.td, first, count);
}
