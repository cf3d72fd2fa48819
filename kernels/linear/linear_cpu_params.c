/* the parameter phases of linear: w.d = dz^T x and b.d = sum of dz over the rows of a slot group (and their tangents).
 * a unit is one block of w.d; rows are summed LINEAR_TERMS at a time, across tasks, in order. */
#include "common/gemm.h"
#include "common/isa.h"
#include "linear/linear_act_internal.h"
#include "linear/linear_internal.h"

/* where the rows of dz come from: `ready` if it lies in memory, else y.d and z.v (and their tangents) give it */
typedef struct source {
  const mica_wire *ready;
  const int32_t   *offsets;
  int              tangent, computed;        /* computed: rows that are not ready are worked out here */
} source;

static source source_of(const mica_linear_args *a, int face, int tangent) {
  source s = { tangent ? &a->y.td : &a->y.d, a->y.offsets, tangent, 0 };
  if (!a->Z) return s;
  s.offsets = a->z.offsets;
  s.ready = tangent ? &a->z.td : &a->z.d;
  if (face == MICA_BACKWARD_JVP && !tangent) return s; /* read only: NULL is zero */
  /* written by the phase before: good to read where that wrote the plain value */
  int plain = s.ready->data && !(s.ready->flags & MICA_ADD) && !micak_wire_sums(s.ready, s.offsets, a->B);
  if (!plain) s.ready = NULL;
  s.computed = 1;
  return s;
}

/* columns [from, from + n) of row r of task b, computed or gathered into `buffer` unless they lie side by side */
typedef struct task_planes { micak_plane ready, dy, dyt, z, zt; } task_planes;

static task_planes planes_of(const mica_linear_args *a, const source *s, int64_t b) {
  task_planes p = { .ready = { NULL, 0, 0, 0 } };
  if (s->ready) p.ready = micak_plane_rows(s->ready, s->offsets, b);
  if (p.ready.at || !s->computed) return p;
  p.dy = micak_plane_rows(&a->y.d, a->y.offsets, b);
  p.z = micak_plane_rows(&a->z.v, a->z.offsets, b);
  if (s->tangent) {
    p.dyt = micak_plane_rows(&a->y.td, a->y.offsets, b);
    p.zt = micak_plane_rows(&a->z.t, a->z.offsets, b);
  }
  return p;
}
static const float *columns(const micak_plane *p, int64_t r, int64_t from, int64_t n, float *buffer) {
  micak_plane part = *p;
  if (part.at) part.at += from * part.col;
  return micak_row_in(&part, r, n, buffer);
}
/* NULL: zeros */
static const float *dz_columns(const mica_linear_args *a, const source *s, const task_planes *p, int64_t r,
                               int64_t from, int64_t n, float *buffer) {
  if (p->ready.at) return columns(&p->ready, r, from, n, buffer);
  if (!p->dy.at && !p->dyt.at) return NULL;
  float z[LINEAR_OUT + VW] = { 0 }, first[LINEAR_OUT + VW], second[LINEAR_OUT + VW];
  float dy[LINEAR_OUT], dyt[LINEAR_OUT], zt[LINEAR_OUT];
  if (p->z.at)
    for (int64_t j = 0; j < n; j++) z[j] = p->z.at[r * p->z.row + (from + j) * p->z.col];
  const float *g = columns(&p->dy, r, from, n, dy);
  if (!s->tangent) {
    act_table[a->act].first(z, first, (n + VW - 1) / VW * VW);
    for (int64_t j = 0; j < n; j++) buffer[j] = g[j] * first[j];
    return buffer;
  }
  act_table[a->act].both(z, first, second, (n + VW - 1) / VW * VW);
  const float *gt = columns(&p->dyt, r, from, n, dyt), *t = columns(&p->zt, r, from, n, zt);
  for (int64_t j = 0; j < n; j++) buffer[j] = gt[j] * first[j] + g[j] * second[j] * t[j];
  return buffer;
}

/* rows [0, kc) of dz's columns as panels of GEMM_MR: out[i / MR][k][i % MR], each row read once */
enum { ROW_PANEL = GEMM_MR * (LINEAR_TERMS + 16) }; /* off a power of two: panels take turns in the cache */
static void pack_rows(const float *const *rows, int64_t kc, int64_t m, float *out) {
  int64_t whole = m / GEMM_MR * GEMM_MR;
  for (int64_t k = 0; k < kc; k++) {
    const float *row = rows[k];
    float *to = out + k * GEMM_MR;
    for (int64_t i = 0; i < whole; i += GEMM_MR, to += ROW_PANEL) memcpy(to, row + i, GEMM_MR * sizeof(float));
    for (int64_t i = whole; i < m; i++) to[i - whole] = row[i];
  }
}
/* sum (m) += rows, in order; sum has room for whole vectors */
static void sum_rows(const float *const *rows, int64_t kc, int64_t m, float *sum) {
  for (int64_t j = 0; j < m; j += VW) {
    vf s = v_load(sum + j);
    if (j + VW <= m)
      for (int64_t k = 0; k < kc; k++) s += v_load(rows[k] + j);
    else
      for (int64_t k = 0; k < kc; k++) s += v_load_n(rows[k] + j, m - j);
    v_store(sum + j, s);
  }
}
/* how far behind a block of rows the next one lies, where rows are evenly spaced; 0: unknown. past the last row it is a
 * wrong guess, which costs little */
static int64_t next_rows(const float *const *rows, int64_t kc) {
  if (kc < LINEAR_TERMS || !rows[0] || !rows[1] || !rows[kc - 1]) return 0;
  int64_t step = (rows[1] - rows[0]);
  return rows[kc - 1] - rows[0] == (kc - 1) * step ? kc * step : 0;
}
/* floats from row to row where rows are evenly spaced and near enough not to crowd few places of the caches; else 0 */
static int64_t near_rows(const float *const *rows, int64_t kc) {
  enum { NEAR = 512 };
  if (!rows[0] || kc < 2 || !rows[1]) return 0;
  int64_t step = rows[1] - rows[0];
  for (int64_t k = 2; k < kc; k++)
    if (rows[k] - rows[k - 1] != step) return 0;
  return step > 0 && step <= NEAR ? step : 0;
}
/* columns of the rows that come after a block of rows `step` floats apart, kc of them; step 0: unknown, nothing */
static gemm_ahead foresee(const float *row, int64_t next, int64_t kc, int64_t n) {
  int64_t width = (n + GEMM_LINE - 1) / GEMM_LINE, step = next / kc;
  return (gemm_ahead){ next ? row + next : NULL, width, width, step - width * GEMM_LINE };
}

typedef struct block {
  const mica_linear_args *a;
  int64_t begin, end;                        /* tasks */
  int64_t out, n_out, in, n_in;              /* columns of dz, of x; n_in 0: b alone */
  int     want_b, n_terms;
  source  dz[2];
  const mica_wire *x[2];                     /* facing dz[i]; NULL: only b wants this one */
  float  *computed, *packed, *panels, *w, *b;
} block;

enum { W_LD = LINEAR_IN };

/* n <= GEMM_WIDE columns of rows of x as panels. NULL rows are zeros */
static void pack_x(float *const *x, int64_t col, int64_t kc, int64_t n, float *out) {
  static const float zero[GEMM_WIDE];
  for (int64_t k = 0; k < kc; k++, out += GEMM_NR)
    gemm_pack_wide(out, GEMM_PANEL, x[k] ? x[k] : zero, 0, x[k] ? col : 1, 1, n);
}

/* one block of rows: up to LINEAR_TERMS rows of dz and x */
static void add_rows(const block *u, int s, const float *const *dz, float *const *x, int64_t xcol, int64_t kc,
                     int *written) {
  enum { FEW = 32 }; /* rows that stay in the first cache from packing to summing */
  float sum[LINEAR_OUT + 16] = { 0 };
  int want_b = u->want_b && s == 0, want_w = u->n_in && u->x[s];
  for (int64_t k = 0; k < kc; k += FEW) {
    int64_t n = kc - k < FEW ? kc - k : FEW;
    if (want_w) pack_rows(dz + k, n, u->n_out, u->packed + k * GEMM_MR);
    if (want_b) sum_rows(dz + k, n, u->n_out, sum);
  }
  for (int64_t j = 0; want_b && j < u->n_out; j++) u->b[j] += sum[j];
  if (!want_w) return;
  /* a copy of x would serve few rows of results: it is read in place where it can be */
  int64_t ldb = xcol == 1 && u->n_in % GEMM_NR == 0 ? near_rows((const float *const *)x, kc) : 0, in_place = ldb > 0;
  if (!in_place) pack_x(x, xcol, kc, u->n_in, u->panels);
  /* the rows of the next block come from memory while this one is multiplied: first dz, then x */
  int64_t next_dz = next_rows(dz, kc), next_x = xcol == 1 ? next_rows((const float *const *)x, kc) : 0;
  gemm_ahead next[2] = { foresee(dz[0], next_dz, kc, u->n_out), foresee(x[0], next_x, kc, u->n_in) };
  const float *end[2] = { next_dz ? dz[0] + 2 * next_dz : NULL, next_x ? x[0] + 2 * next_x : NULL };
  int which = 0;
  for (int64_t i = 0; i < u->n_out; i += GEMM_MR)
    for (int64_t j = 0; j < u->n_in; j += GEMM_NR) {
      int64_t m = u->n_out - i < GEMM_MR ? u->n_out - i : GEMM_MR, n = u->n_in - j < GEMM_NR ? u->n_in - j : GEMM_NR;
      while (which < 2 && next[which].at >= end[which]) which++;
      const float *panel = in_place ? x[0] + j : u->panels + j / GEMM_NR * GEMM_PANEL;
      gemm_packed_panels(m, n, kc, u->packed + i / GEMM_MR * ROW_PANEL, 0, panel, in_place ? ldb : GEMM_NR, 0,
                         u->w + i * W_LD + j, W_LD, *written, NULL, which < 2 ? &next[which] : NULL);
    }
  *written = 1;
}

/* a block of few rows of one task, all in place: dz and x are read where they lie. returns 0 when they do not */
static int add_small(const block *u, int s, int64_t longest, const int32_t *offsets, int *written) {
  const mica_linear_args *a = u->a;
  int64_t kc = micak_rows(offsets, u->begin, longest);
  if (u->end - u->begin != 1 || !u->n_in || !u->x[s] || u->n_in % VW || kc < 1 || kc > 64) return 0;
  task_planes p = planes_of(a, &u->dz[s], u->begin);
  micak_plane x = micak_plane_rows(u->x[s], a->x.offsets, u->begin);
  if (!p.ready.at || p.ready.col != 1 || !x.at || x.col != 1) return 0;
  const float *dz = p.ready.at + u->out, *rows[LINEAR_TERMS];
  if (u->want_b && s == 0) {
    for (int64_t k = 0; k < kc; k++) rows[k] = dz + k * p.ready.row;
    sum_rows(rows, kc, u->n_out, u->b);
  }
  for (int64_t i = 0; i < u->n_out; i++) rows[i] = dz + i;
  gemm_panels(u->n_out, u->n_in, kc, rows, 0, p.ready.row, x.at + u->in, x.row, GEMM_NR, u->w, W_LD, *written, NULL);
  *written = 1;
  return 1;
}

static void run_block(const block *u, const int32_t *offsets, int64_t longest) {
  static const float zero[LINEAR_OUT];
  const mica_linear_args *a = u->a;
  const float *dz[LINEAR_TERMS];
  float *x[LINEAR_TERMS];
  int written = 0;
  if (u->want_b) memset(u->b, 0, (LINEAR_OUT + 16) * sizeof(float));
  for (int s = 0; s < u->n_terms; s++) {
    if (add_small(u, s, longest, offsets, &written)) continue;
    int64_t kc = 0, xcol = u->x[s] ? u->x[s]->stride[1] : 1;
    for (int64_t b = u->begin; b < u->end; b++) {
      int64_t R = micak_rows(offsets, b, longest);
      if (R <= 0) continue;
      task_planes p = planes_of(a, &u->dz[s], b);
      micak_plane px = { NULL, 0, 0, 0 };
      if (u->x[s]) px = micak_plane_rows(u->x[s], a->x.offsets, b);
      for (int64_t r = 0; r < R; r++) {
        const float *row = dz_columns(a, &u->dz[s], &p, r, u->out, u->n_out, u->computed + kc * LINEAR_OUT);
        dz[kc] = row ? row : zero;
        x[kc] = px.at ? px.at + r * px.row + u->in * px.col : NULL;
        if (++kc < LINEAR_TERMS) continue;
        add_rows(u, s, dz, x, xcol, kc, &written);
        kc = 0;
      }
    }
    if (kc) add_rows(u, s, dz, x, xcol, kc, &written);
  }
  if (u->n_in && !written)
    for (int64_t i = 0; i < u->n_out; i++) memset(u->w + i * W_LD, 0, (size_t)u->n_in * sizeof(float));
}

static void write_row(float *to, int64_t stride, int add, const float *from, int64_t n) {
  if (add)
    for (int64_t j = 0; j < n; j++) to[j * stride] += from[j];
  else
    for (int64_t j = 0; j < n; j++) to[j * stride] = from[j];
}

static mica_status params(const mica_exec *exec, const mica_linear_args *a, int face, int64_t first, int64_t count) {
  if (a->Z && !a->z.v.data)
    return mica_error(MICA_ERR_INVALID, "linear %s: the activation needs the saved z.v of the forward, which is"
                      " missing", mica_face_name(face));
  linear_cut cut = linear_cut_of(a, face);
  float *at = exec->scratch;
  block u = { .a = a, .n_terms = 1, .panels = at, .w = at + LINEAR_PANEL };
  u.packed = u.w + (LINEAR_OUT + 12) * LINEAR_IN;
  u.computed = u.packed + (LINEAR_OUT + 12) * (LINEAR_TERMS + 16);
  u.b = u.computed + LINEAR_TERMS * LINEAR_OUT;
  int hvp = face == MICA_BACKWARD_JVP;
  u.dz[0] = source_of(a, face, hvp);
  const mica_wire *x0 = a->x.v.data ? &a->x.v : NULL, *x1 = NULL;
  if (hvp && a->x.t.data) {
    u.dz[1] = source_of(a, face, 0);
    x1 = &a->x.t;
    u.n_terms = 2;
  }
  int64_t group = -1;
  const mica_wire *grouped = NULL;
  for (int64_t unit = first; unit < first + count; unit++) {
    const mica_wire *w = unit < cut.w_units ? cut.w : NULL, *b = w && !cut.fused ? NULL : cut.b;
    int64_t n = w ? unit : unit - cut.w_units, n_in = w ? cut.n_in : 1, in = n % n_in, out = n / n_in % cut.n_out;
    if (grouped != (w ? w : b) || group != n / n_in / cut.n_out) {
      int next = grouped == (w ? w : b) && group + 1 == n / n_in / cut.n_out;
      grouped = w ? w : b;
      group = n / n_in / cut.n_out;
      linear_group(grouped, a->B, group, next, &u.begin, &u.end);
    }
    float *wd = w ? micak_task(w, NULL, u.begin) : NULL, *bd = b && in == 0 ? micak_task(b, NULL, u.begin) : NULL;
    if (!wd && !bd) continue;
    u.out = out * cut.out;
    u.n_out = a->O - u.out < cut.out ? a->O - u.out : cut.out;
    u.in = wd ? in * LINEAR_IN : 0;
    u.n_in = wd ? a->I - u.in < LINEAR_IN ? a->I - u.in : LINEAR_IN : 0;
    u.want_b = bd != NULL;
    u.x[0] = wd ? x0 : NULL;
    u.x[1] = wd ? x1 : NULL;
    run_block(&u, linear_offsets(a), a->R);
    for (int64_t i = 0; i < u.n_out && wd; i++)
      write_row(wd + (u.out + i) * w->stride[0] + u.in * w->stride[1], w->stride[1], (w->flags & MICA_ADD) != 0,
                u.w + i * W_LD, u.n_in);
    if (bd) write_row(bd + u.out * b->stride[0], b->stride[0], (b->flags & MICA_ADD) != 0, u.b, u.n_out);
  }
  return MICA_OK;
}

CPU_KERNEL(linear_backward_params) { return params(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(linear_backward_jvp_params) { return params(exec, args, MICA_BACKWARD_JVP, first, count); }
