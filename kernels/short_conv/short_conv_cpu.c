/* short_conv on the CPU: vectors of channels, down the tokens of a task */
#include "common/columns.h"
#include "common/isa.h"
#include "short_conv/short_conv_internal.h"

/* state and rows of one wire of one task as one sequence: tokens -P to T - 1 */
typedef struct sequence {
  micak_plane state, x;
  int64_t     past;
} sequence;
static sequence sequence_of(const mica_wire *state, const mica_wire *x, const int32_t *offsets, int64_t past,
                            int64_t b) {
  return (sequence){ micak_plane_rows(state, NULL, b), micak_plane_rows(x, offsets, b), past };
}

static vf plane_take(const micak_plane *p, int64_t r, int64_t c, int64_t n) {
  float lane[VW];
  if (!p->at) return v_zero();
  const float *at = p->at + r * p->row + c * p->col;
  if (p->col == 1) return micak_ld(at, n);
  for (int64_t i = 0; i < VW; i++) lane[i] = i < n ? at[i * p->col] : 0;
  return v_load(lane);
}
static void plane_give(const micak_plane *p, int64_t r, int64_t c, int64_t n, vf x) {
  float lane[VW];
  if (!p->at) return;
  float *at = p->at + r * p->row + c * p->col;
  if (p->col == 1) {
    micak_st(at, p->add ? micak_ld(at, n) + x : x, n);
    return;
  }
  v_store(lane, x);
  for (int64_t i = 0; i < n; i++) at[i * p->col] = p->add ? at[i * p->col] + lane[i] : lane[i];
}
static vf take(const sequence *s, int64_t t, int64_t c, int64_t n) {
  return t < 0 ? plane_take(&s->state, s->past + t, c, n) : plane_take(&s->x, t, c, n);
}

/* wires that are multiplied */
typedef struct product {
  const mica_wire *w, *state, *x;
} product;

/* n channels of one task: y_t = sum of w_j x_(t-j) over the products; the kept tokens are those of the first product */
static void down(const mica_short_conv_args *a, const product *p, int terms, const mica_wire *y_wire,
                 const mica_wire *kept_wire, int64_t b, int64_t c, int64_t n) {
  int64_t T = micak_rows(a->x.offsets, b, a->T);
  micak_plane y = micak_plane_rows(y_wire, a->y.offsets, b), kept = micak_plane_rows(kept_wire, NULL, b);
  sequence s[2];
  vf w[2][SHORT_CONV_TAPS];
  for (int i = 0; i < terms; i++) {
    micak_plane taps = micak_plane_rows(p[i].w, NULL, b);
    s[i] = sequence_of(p[i].state, p[i].x, a->x.offsets, a->P, b);
    for (int64_t j = 0; j < a->W; j++) w[i][j] = plane_take(&taps, j, c, n);
  }
  for (int64_t t = 0; y.at && t < T; t++) {
    vf sum = v_zero();
    for (int64_t j = 0; j < a->W; j++)
      for (int i = 0; i < terms; i++) sum = v_fma(w[i][j], take(&s[i], t - j, c, n), sum);
    plane_give(&y, t, c, n, sum);
  }
  for (int64_t k = 0; kept.at && k < a->P; k++) plane_give(&kept, k, c, n, take(&s[0], T - a->P + k, c, n));
}

/* the cotangent of token u, from the outputs u to u + W - 1 that read it and from state_out */
static void up(const mica_short_conv_args *a, const mica_wire *const w_wire[2], const mica_wire *const y_wire[2],
               int terms, const mica_wire *x_wire, const mica_wire *state_wire, const mica_wire *kept_wire, int64_t b,
               int64_t c, int64_t n) {
  int64_t T = micak_rows(a->x.offsets, b, a->T);
  micak_plane x = micak_plane_rows(x_wire, a->x.offsets, b), state = micak_plane_rows(state_wire, NULL, b);
  micak_plane kept = micak_plane_rows(kept_wire, NULL, b), y[2];
  vf w[2][SHORT_CONV_TAPS];
  for (int i = 0; i < terms; i++) {
    micak_plane taps = micak_plane_rows(w_wire[i], NULL, b);
    y[i] = micak_plane_rows(y_wire[i], a->y.offsets, b);
    for (int64_t j = 0; j < a->W; j++) w[i][j] = plane_take(&taps, j, c, n);
  }
  for (int64_t u = state.at ? -a->P : 0; u < (x.at ? T : 0); u++) {
    vf sum = v_zero();
    for (int64_t j = u < 0 ? -u : 0; j < a->W && u + j < T; j++)
      for (int i = 0; i < terms; i++) sum = v_fma(w[i][j], plane_take(&y[i], u + j, c, n), sum);
    if (a->P - T + u >= 0) sum = sum + plane_take(&kept, a->P - T + u, c, n);
    if (u < 0) plane_give(&state, a->P + u, c, n, sum);
    else plane_give(&x, u, c, n, sum);
  }
}

/* w.d of the tasks of one slot group: sums over their tokens */
static void taps(const mica_short_conv_args *a, const product *p, const mica_wire *const y_wire[2], int terms,
                 const mica_wire *out, int64_t begin, int64_t end, int64_t c, int64_t n) {
  micak_plane to = micak_plane_rows(out, NULL, begin);
  if (!to.at) return;
  for (int64_t j = 0; j < a->W; j++) {
    vf all = v_zero();
    for (int64_t b = begin; b < end; b++) {
      int64_t T = micak_rows(a->x.offsets, b, a->T);
      vf sum = v_zero();
      for (int i = 0; i < terms; i++) {
        sequence s = sequence_of(p[i].state, p[i].x, a->x.offsets, a->P, b);
        micak_plane y = micak_plane_rows(y_wire[i], a->y.offsets, b);
        if (!y.at) continue;
        for (int64_t t = 0; t < T; t++) sum = v_fma(take(&s, t - j, c, n), plane_take(&y, t, c, n), sum);
      }
      all = all + sum;
    }
    plane_give(&to, j, c, n, all);
  }
}

/* run the body for the vectors of each unit's channels: first channel c, lanes n, tasks [begin, end) */
#define UNITS(groups_begin_end, ...)                                                                    \
  int64_t blocks = short_conv_blocks(a);                                                                \
  for (int64_t unit = first; unit < first + count; unit++) {                                            \
    int64_t begin, end, c0 = unit % blocks * SHORT_CONV_BLOCK, g = unit / blocks;                       \
    int64_t c1 = c0 + SHORT_CONV_BLOCK < a->C ? c0 + SHORT_CONV_BLOCK : a->C;                           \
    groups_begin_end;                                                                                   \
    for (int64_t c = c0; c < c1; c += VW) {                                                             \
      const int64_t n = c1 - c < VW ? c1 - c : VW;                                                      \
      __VA_ARGS__                                                                                       \
    }                                                                                                   \
  }                                                                                                     \
  return MICA_OK

static mica_status run_down(const mica_short_conv_args *a, const product *p, int terms, int bit, const mica_wire *y,
                            const mica_wire *kept, int64_t first, int64_t count) {
  int sums = short_conv_sums(a, bit);
  UNITS((begin = sums ? 0 : g, end = sums ? a->B : g + 1),
        for (int64_t b = begin; b < end; b++) down(a, p, terms, y, kept, b, c, n););
}
CPU_KERNEL(short_conv_forward) {
  const mica_short_conv_args *a = args;
  const product p = { &a->w.v, &a->state_in.v, &a->x.v };
  return (void)exec, run_down(a, &p, 1, MICA_V, &a->y.v, &a->state_out.v, first, count);
}
CPU_KERNEL(short_conv_jvp) {
  const mica_short_conv_args *a = args;
  const product p[2] = { { &a->w.v, &a->state_in.t, &a->x.t }, { &a->w.t, &a->state_in.v, &a->x.v } };
  return (void)exec, run_down(a, p, 2, MICA_T, &a->y.t, &a->state_out.t, first, count);
}

static mica_status run_up(const mica_short_conv_args *a, int terms, int bit, const mica_wire *x, const mica_wire *state,
                          const mica_wire *kept, int64_t first, int64_t count) {
  const mica_wire *const w[2] = { &a->w.v, &a->w.t }, *const y[2] = { terms == 2 ? &a->y.td : &a->y.d, &a->y.d };
  int sums = short_conv_sums(a, bit);
  UNITS((begin = sums ? 0 : g, end = sums ? a->B : g + 1),
        for (int64_t b = begin; b < end; b++) up(a, w, y, terms, x, state, kept, b, c, n););
}
CPU_KERNEL(short_conv_backward) {
  const mica_short_conv_args *a = args;
  return (void)exec, run_up(a, 1, MICA_D, &a->x.d, &a->state_in.d, &a->state_out.d, first, count);
}
CPU_KERNEL(short_conv_backward_jvp) {
  const mica_short_conv_args *a = args;
  return (void)exec, run_up(a, 2, MICA_TD, &a->x.td, &a->state_in.td, &a->state_out.td, first, count);
}

static mica_status run_taps(const mica_short_conv_args *a, const product *p, const mica_wire *const y[2], int terms,
                            const mica_wire *out, int64_t first, int64_t count) {
  UNITS(micak_group(out, a->B, g, &begin, &end), taps(a, p, y, terms, out, begin, end, c, n););
}
CPU_KERNEL(short_conv_backward_taps) {
  const mica_short_conv_args *a = args;
  const product p = { NULL, &a->state_in.v, &a->x.v };
  const mica_wire *const y[2] = { &a->y.d, NULL };
  return (void)exec, run_taps(a, &p, y, 1, &a->w.d, first, count);
}
CPU_KERNEL(short_conv_backward_jvp_taps) {
  const mica_short_conv_args *a = args;
  const product p[2] = { { NULL, &a->state_in.v, &a->x.v }, { NULL, &a->state_in.t, &a->x.t } };
  const mica_wire *const y[2] = { &a->y.td, &a->y.d };
  return (void)exec, run_taps(a, p, y, 2, &a->w.td, first, count);
}
