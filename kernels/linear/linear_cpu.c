/* the row-local phases of linear: tiles of LINEAR_ROWS rows that meet the same w, LINEAR_COLS columns at a time, with
 * bias, activation and residual applied while the tile is in cache. */
#include "common/gemm.h"
#include "common/isa.h"
#include "common/prepare.h"
#include "linear/linear_act_internal.h"
#include "linear/linear_internal.h"

typedef struct segment { int64_t b, row, n; } segment;
typedef struct row_walk {
  const mica_linear_args *a;
  const int32_t *offsets;
  int64_t b, row, left;
  int     sums;                              /* an output sums over tasks: all rows at once */
} row_walk;
typedef struct tile {
  int64_t      n, n_segments;
  const float *w, *wt;                       /* NULL: zeros */
  segment      segments[LINEAR_ROWS];
} tile;

static row_walk walk_start(const mica_linear_args *a, int face, int64_t first, int64_t count) {
  row_walk walk = { a, linear_offsets(a), 0, 0, count, linear_sums(a, face) };
  if (walk.sums) {
    first = 0;
    walk.left = linear_all_rows(a);
  }
  if (walk.left > 0 && a->R > 0) micak_find_row(walk.offsets, a->B, a->R, first, &walk.b, &walk.row);
  else walk.left = 0;
  return walk;
}

/* the next rows, at most LINEAR_ROWS, that meet the same w; 0 at the end */
static int next_tile(row_walk *walk, tile *t) {
  const mica_linear_args *a = walk->a;
  t->n = t->n_segments = 0;
  while (walk->left > 0 && t->n < LINEAR_ROWS && walk->b < a->B) {
    int64_t rows = micak_rows(walk->offsets, walk->b, a->R), n = rows - walk->row;
    if (n > 0) {
      const float *w = micak_task(&a->w.v, NULL, walk->b), *wt = micak_task(&a->w.t, NULL, walk->b);
      if (t->n_segments == 0) {
        t->w = w;
        t->wt = wt;
      } else if (t->w != w || t->wt != wt) {
        break;
      }
      if (n > walk->left) n = walk->left;
      if (n > LINEAR_ROWS - t->n) n = LINEAR_ROWS - t->n;
      t->segments[t->n_segments++] = (segment){ walk->b, walk->row, n };
      t->n += n;
      walk->left -= n;
      walk->row += n;
    }
    if (walk->row >= rows) {
      walk->b++;
      walk->row = 0;
    }
  }
  return t->n > 0;
}

/* one wire of a tile: where its rows begin */
typedef struct tile_rows {
  float  *at[LINEAR_ROWS];                   /* NULL: zeros, or nowhere */
  uint8_t add[LINEAR_ROWS];
  int64_t col;
  int     any;
} tile_rows;

static void find_rows(const mica_wire *wire, const int32_t *offsets, const tile *t, int64_t row, int64_t col,
                      tile_rows *rows) {
  rows->any = 0;
  rows->col = col;
  if (!wire->data) return;
  int64_t n = 0;
  for (int64_t s = 0; s < t->n_segments; s++) {
    const segment *seg = &t->segments[s];
    float *at = micak_task(wire, offsets, seg->b);
    uint8_t add = (wire->flags & MICA_ADD) || micak_same_slot(wire, offsets, seg->b);
    for (int64_t i = 0; i < seg->n; i++, n++) {
      rows->at[n] = at ? at + (seg->row + i) * row : NULL;
      rows->add[n] = add;
    }
    if (at) rows->any = 1;
  }
}
/* wires (B,R,C) and (B,C) */
static void port_rows(const mica_port *port, int bit, const tile *t, tile_rows *rows) {
  const mica_wire *wire = linear_wire(port, bit);
  find_rows(wire, port->offsets, t, wire->stride[0], wire->stride[1], rows);
}
static void param_rows(const mica_wire *wire, const tile *t, tile_rows *rows) {
  find_rows(wire, NULL, t, 0, wire->stride[0], rows);
}

/* n <= LINEAR_COLS floats of row i from column `from`, whole vectors: in place or through `buffer`; NULL: zeros */
static const float *take(const tile_rows *rows, int64_t i, int64_t from, int64_t n, float *buffer) {
  if (!rows->any || !rows->at[i]) return NULL;
  const float *at = rows->at[i] + from * rows->col;
  if (rows->col == 1 && n % VW == 0) return at;
  for (int64_t j = 0; j < n; j++) buffer[j] = at[j * rows->col];
  for (int64_t j = n; j % VW; j++) buffer[j] = 0;
  return buffer;
}
static void put(const tile_rows *rows, int64_t i, int64_t from, int64_t n, const float *c) {
  if (!rows->any || !rows->at[i]) return;
  float *at = rows->at[i] + from * rows->col;
  int64_t col = rows->col;
  if (rows->add[i])
    for (int64_t j = 0; j < n; j++) at[j * col] += c[j];
  else if (col == 1)
    memcpy(at, c, (size_t)n * sizeof *c);
  else
    for (int64_t j = 0; j < n; j++) at[j * col] = c[j];
}
static void add_to(float *c, const float *x, int64_t n) {
  if (x)
    for (int64_t j = 0; j < n; j++) c[j] += x[j];
}
static void multiply(float *c, const float *x, int64_t n) {
  for (int64_t j = 0; j < n; j++) c[j] *= x[j];
}

/* rows of A for the product: n floats side by side each. 0: all zeros */
static int factor(const tile_rows *rows, int64_t count, int64_t n, const float *zeros, float *buffer, const float **a) {
  if (!rows->any) return 0;
  for (int64_t i = 0; i < count; i++) {
    if (!rows->at[i] || rows->col == 1) {
      a[i] = rows->at[i] ? rows->at[i] : zeros;
      continue;
    }
    for (int64_t j = 0; j < n; j++) buffer[i * n + j] = rows->at[i][j * rows->col];
    a[i] = buffer + i * n;
  }
  return 1;
}

/* one product: rows a (n x K) times W, W(k, j) = w[k sk + j sn] */
typedef struct term {
  const float *const *a;
  const float *w;
  int64_t      K, sk, sn;
  const float *packed;                       /* all of W, as prepare leaves it; NULL: not packed */
  float       *panels;                       /* room for the rows as panels, block of terms after block; NULL: in place */
} term;

/* where the packed block of terms from k on lies, columns from `from` on: LINEAR_COLS of them, or what is left of N */
static const float *packed_block(const float *packed, int64_t K, int64_t N, int64_t from, int64_t k) {
  int64_t left = N - from < LINEAR_COLS ? N - from : LINEAR_COLS;
  return packed + from * K + k * ((left + LINEAR_SHARE - 1) / LINEAR_SHARE * LINEAR_SHARE);
}

/* copies of rows pay where many columns meet them; then W comes as panels too */
static void pack_terms(term *terms, int count, int64_t n, int64_t N, float *const *to) {
  enum { COLUMNS = 96 };
  for (int s = 0; s < count; s++) {
    term *t = &terms[s];
    if (N >= COLUMNS && n >= 2 * GEMM_MR && (t->packed || n > GEMM_FEW)) t->panels = to[s];
  }
}

/* the same for rows that the first columns turn into panels, each just before it is used; where there are no more columns
 * one panel's room serves all */
static void packed_rows(const term *t, int64_t n, int64_t N, int64_t from, int64_t nn, int64_t k, int64_t kc,
                        const float *w, int64_t stride, float *c, int add, const gemm_out *out, gemm_ahead *ahead) {
  gemm_out part;
  for (int64_t i = 0; i < n; i += GEMM_MR) {
    int64_t mr = n - i < GEMM_MR ? n - i : GEMM_MR;
    float *a = t->panels + (N > LINEAR_COLS ? k * LINEAR_ROWS + i * kc : 0);
    if (from == 0) gemm_pack_rows(a, t->a + i, mr, k, kc);
    if (out) part = (gemm_out){ out->bias, out->res ? out->res + i : NULL, out->to + i, out->at };
    gemm_packed_panels(mr, nn, kc, a, 0, w, GEMM_NR, stride, c + i * LINEAR_COLS, LINEAR_COLS, add,
                       out ? &part : NULL, ahead);
  }
}

/* c (n x LINEAR_COLS) = sum of the terms, columns [from, from + nn) of W's N. with `out` the last block's tiles go where
 * that says, c holds the sums before them, and 1 is returned; 0 where there was no product: then c is cleared */
static int multiply_tile(const term *terms, int count, int64_t n, int64_t N, int64_t from, int64_t nn, float *panels,
                         float *c, const gemm_out *out) {
  int written = 0;
  while (count && terms[count - 1].K <= 0) count--;
  for (int s = 0; s < count; s++) {
    const term *t = &terms[s];
    for (int64_t k = 0; k < t->K; k += GEMM_KB, written = 1) {
      int64_t kc = t->K - k < GEMM_KB ? t->K - k : GEMM_KB, ldb = GEMM_NR, stride = kc * GEMM_NR;
      const float *w = t->w + k * t->sk + from * t->sn;
      int last = out && s == count - 1 && k + kc == t->K;
      gemm_out part;
      if (last) part = (gemm_out){ out->bias, out->res, out->to, from };
      gemm_ahead next = { NULL, INT64_MAX, 0, 0 };
      if (t->packed) {
        w = packed_block(t->packed, t->K, N, from, k);
        next.at = w + kc * ((nn + LINEAR_SHARE - 1) / LINEAR_SHARE * LINEAR_SHARE); /* blocks lie one after another */
      } else if (gemm_in_place(n, t->sk, t->sn, kc, nn)) {
        ldb = t->sk, stride = GEMM_NR;
      } else {
        gemm_pack_wide(panels, stride, w, t->sk, t->sn, kc, nn);
        w = panels;
      }
      if (t->panels)
        packed_rows(t, n, N, from, nn, k, kc, w, stride, c, written, last ? &part : NULL, next.at ? &next : NULL);
      else
        gemm_panels(n, nn, kc, t->a, k, 1, w, ldb, stride, c, LINEAR_COLS, written, last ? &part : NULL);
    }
  }
  if (!written) memset(c, 0, (size_t)(n * LINEAR_COLS) * sizeof *c);
  return written && out;
}

/* units of LINEAR_SHARE columns of each factor that is packed for all calls */
static mica_status prepare(const mica_exec *exec, const mica_linear_args *a, int face, int64_t first, int64_t count) {
  const mica_wire *factor[2];
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, n = linear_factors(a, face, factor);
  int64_t K = back ? a->O : a->I, N = back ? a->I : a->O, units = (N + LINEAR_SHARE - 1) / LINEAR_SHARE;
  float *packed = micak_shared(exec);
  for (int i = 0; i < n; i++) {
    if (!linear_packs(a, factor[i])) continue;
    int64_t sk = factor[i]->stride[back ? 0 : 1], sn = factor[i]->stride[back ? 1 : 0];
    for (; first < units && count > 0; first++, count--) {
      int64_t at = first * LINEAR_SHARE, from = at / LINEAR_COLS * LINEAR_COLS;
      int64_t nn = N - at < LINEAR_SHARE ? N - at : LINEAR_SHARE;
      for (int64_t k = 0; k < K; k += GEMM_KB) {
        int64_t kc = K - k < GEMM_KB ? K - k : GEMM_KB;
        float *to = packed + (packed_block(packed, K, N, from, k) - packed) + (at - from) * kc;
        gemm_pack_wide(to, kc * GEMM_NR, (const float *)factor[i]->data + k * sk + at * sn, sk, sn, kc, nn);
      }
    }
    first -= units;
    if (first < 0) first = 0;
    packed += linear_packed_floats(K, N);
  }
  return MICA_OK;
}
CPU_KERNEL(linear_forward_prepare) { return prepare(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(linear_backward_prepare) { return prepare(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(linear_jvp_prepare) { return prepare(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(linear_backward_jvp_prepare) { return prepare(exec, args, MICA_BACKWARD_JVP, first, count); }

/* what prepare left of w, and of w.t; NULL: packed by every tile */
static void find_packed(const mica_exec *exec, const mica_linear_args *a, int face, const float *packed[2]) {
  const mica_wire *factor[2];
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, n = linear_factors(a, face, factor);
  const float *at = micak_shared(exec);
  packed[0] = packed[1] = NULL;
  for (int i = 0; i < n && at; i++) {
    if (!linear_packs(a, factor[i])) continue;
    packed[i] = at;
    at += linear_packed_floats(back ? a->O : a->I, back ? a->I : a->O);
  }
}

/* can finished tiles go straight to `to`, with one bias and at most one further summand a row? whole vectors only */
static int direct(const tile *t, const tile_rows *bias, const tile_rows *res, const tile_rows *to, gemm_out *out) {
  if (!to->any || to->col != 1 || (bias && bias->any && bias->col != 1) || (res && res->any && res->col != 1)) return 0;
  for (int64_t i = 0; i < t->n; i++)
    if (!to->at[i] || to->add[i] || (bias && bias->any && bias->at[i] != bias->at[0]) ||
        (res && res->any && !res->at[i]))
      return 0;
  *out = (gemm_out){ bias && bias->any ? bias->at[0] : NULL,
                     res && res->any ? (const float *const *)res->at : NULL, to->at, 0 };
  return 1;
}

typedef struct buffers { float *panels, *c, *zeros, *rows[2], *packed[2]; } buffers;
static buffers cut_scratch(const mica_exec *exec, const mica_linear_args *a) {
  int64_t longest = linear_longest(a), packed = linear_packed_row(a);
  float *at = exec->scratch;
  buffers s = { at, at + LINEAR_PANEL, at + LINEAR_PANEL + LINEAR_ROWS * LINEAR_COLS, { NULL }, { NULL } };
  s.packed[0] = s.zeros + longest;
  s.packed[1] = s.packed[0] + LINEAR_ROWS * packed;
  s.rows[0] = s.packed[1] + LINEAR_ROWS * packed;
  s.rows[1] = s.rows[0] + LINEAR_ROWS * longest;
  memset(s.zeros, 0, (size_t)longest * sizeof(float));
  return s;
}

static mica_status need_z(const mica_linear_args *a, const char *face) {
  if (!a->Z || a->z.v.data) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "linear %s: the activation needs the saved z.v of the forward, which is missing",
                    face);
}

#define TILE_COLUMNS(from, nn, all) \
  for (int64_t from = 0, nn; nn = (all) - from < LINEAR_COLS ? (all) - from : LINEAR_COLS, from < (all); from += nn)

CPU_KERNEL(linear_forward) {
  const mica_linear_args *a = args;
  const act_functions *act = &act_table[a->act];
  buffers s = cut_scratch(exec, a);
  row_walk walk = walk_start(a, MICA_FORWARD, first, count);
  const float *packed[2];
  find_packed(exec, a, MICA_FORWARD, packed);
  tile t;
  tile_rows x, b, res, y, z;
  const float *rows[LINEAR_ROWS];
  float tmp[LINEAR_COLS];
  while (next_tile(&walk, &t)) {
    port_rows(&a->x, MICA_V, &t, &x);
    param_rows(&a->b.v, &t, &b);
    port_rows(&a->res, MICA_V, &t, &res);
    port_rows(&a->y, MICA_V, &t, &y);
    port_rows(&a->z, MICA_V, &t, &z);
    if (!a->Z) z.any = 0;
    term terms[1] = { { rows, t.w, a->I, a->w.v.stride[1], a->w.v.stride[0], packed[0], NULL } };
    int used = t.w && factor(&x, t.n, a->I, s.zeros, s.rows[0], rows);
    gemm_out out;
    int straight = !a->Z && direct(&t, &b, &res, &y, &out);
    pack_terms(terms, used, t.n, a->O, s.packed);
    TILE_COLUMNS(from, nn, a->O) {
      const gemm_out *end = straight && nn % VW == 0 ? &out : NULL;
      if (multiply_tile(terms, used, t.n, a->O, from, nn, s.panels, s.c, end)) continue;
      for (int64_t i = 0; i < t.n; i++) {
        float *c = s.c + i * LINEAR_COLS;
        add_to(c, take(&b, i, from, nn, tmp), nn);
        if (a->Z) {
          put(&z, i, from, nn, c);
          act->value(c, c, (nn + VW - 1) / VW * VW);
        }
        add_to(c, take(&res, i, from, nn, tmp), nn);
        put(&y, i, from, nn, c);
      }
    }
  }
  return MICA_OK;
}

CPU_KERNEL(linear_jvp) {
  const mica_linear_args *a = args;
  const act_functions *act = &act_table[a->act];
  mica_status status = need_z(a, "jvp");
  if (status < 0) return status;
  buffers s = cut_scratch(exec, a);
  row_walk walk = walk_start(a, MICA_JVP, first, count);
  const float *packed[2];
  find_packed(exec, a, MICA_JVP, packed);
  tile t;
  tile_rows x, xt, b, res, y, z, zt;
  const float *rows[2][LINEAR_ROWS];
  float tmp[LINEAR_COLS], slope[LINEAR_COLS];
  static const float zero[LINEAR_COLS];
  while (next_tile(&walk, &t)) {
    port_rows(&a->x, MICA_V, &t, &x);
    port_rows(&a->x, MICA_T, &t, &xt);
    param_rows(&a->b.t, &t, &b);
    port_rows(&a->res, MICA_T, &t, &res);
    port_rows(&a->y, MICA_T, &t, &y);
    port_rows(&a->z, MICA_V, &t, &z);
    port_rows(&a->z, MICA_T, &t, &zt);
    if (!a->Z) zt.any = 0;
    term terms[2];
    int used = 0;
    if (t.w && factor(&xt, t.n, a->I, s.zeros, s.rows[0], rows[0]))
      terms[used++] = (term){ rows[0], t.w, a->I, a->w.v.stride[1], a->w.v.stride[0], packed[0], NULL };
    if (t.wt && factor(&x, t.n, a->I, s.zeros, s.rows[1], rows[1]))
      terms[used++] = (term){ rows[1], t.wt, a->I, a->w.t.stride[1], a->w.t.stride[0], packed[1], NULL };
    gemm_out out;
    int straight = !a->Z && direct(&t, &b, &res, &y, &out);
    pack_terms(terms, used, t.n, a->O, s.packed);
    TILE_COLUMNS(from, nn, a->O) {
      const gemm_out *end = straight && nn % VW == 0 ? &out : NULL;
      if (multiply_tile(terms, used, t.n, a->O, from, nn, s.panels, s.c, end)) continue;
      for (int64_t i = 0; i < t.n; i++) {
        float *c = s.c + i * LINEAR_COLS;
        add_to(c, take(&b, i, from, nn, tmp), nn);
        if (a->Z) {
          put(&zt, i, from, nn, c);
          const float *at = take(&z, i, from, nn, tmp);
          act->first(at ? at : zero, slope, (nn + VW - 1) / VW * VW);
          multiply(c, slope, nn);
        }
        add_to(c, take(&res, i, from, nn, tmp), nn);
        put(&y, i, from, nn, c);
      }
    }
  }
  return MICA_OK;
}

/* rows of dz (or its tangent) are computed into z's wire where nothing else lands there, else into a buffer */
static float *dz_place(const tile_rows *z, int sums, int64_t i, float *buffer, int64_t O) {
  return z->any && z->at[i] && z->col == 1 && !z->add[i] && !sums ? z->at[i] : buffer + i * O;
}
/* dz = dy act'(z); leave the rows for the product */
static void dz_rows(const mica_linear_args *a, int sums, const tile *t, const tile_rows *dy, const tile_rows *z,
                    const tile_rows *dz, float *buffer, const float **rows) {
  static const float zero[LINEAR_COLS];
  float tmp[LINEAR_COLS], slope[LINEAR_COLS];
  for (int64_t i = 0; i < t->n; i++) {
    float *to = dz_place(dz, sums, i, buffer, a->O);
    rows[i] = to;
    TILE_COLUMNS(from, nn, a->O) {
      const float *at = take(z, i, from, nn, tmp);
      act_table[a->act].first(at ? at : zero, slope, (nn + VW - 1) / VW * VW);
      at = take(dy, i, from, nn, tmp);
      for (int64_t j = 0; j < nn; j++) to[from + j] = at ? at[j] * slope[j] : 0;
      if (!dz->any || to != dz->at[i]) put(dz, i, from, nn, to + from);
    }
  }
}

static void copy_rows(const tile *t, const tile_rows *from_rows, const tile_rows *to, int64_t O) {
  static const float zero[LINEAR_COLS];
  float tmp[LINEAR_COLS];
  if (!to->any) return;
  for (int64_t i = 0; i < t->n; i++)
    TILE_COLUMNS(from, nn, O) {
      const float *at = take(from_rows, i, from, nn, tmp);
      put(to, i, from, nn, at ? at : zero);
    }
}

CPU_KERNEL(linear_backward) {
  const mica_linear_args *a = args;
  mica_status status = need_z(a, "backward");
  if (status < 0) return status;
  buffers s = cut_scratch(exec, a);
  row_walk walk = walk_start(a, MICA_BACKWARD, first, count);
  const float *packed[2];
  find_packed(exec, a, MICA_BACKWARD, packed);
  tile t;
  tile_rows dy, z, dz, dx, dres;
  const float *rows[LINEAR_ROWS];
  int want_z = a->Z && a->z.d.data;
  if (!want_z && !a->x.d.data && !a->res.d.data) return MICA_OK;
  while (next_tile(&walk, &t)) {
    port_rows(&a->y, MICA_D, &t, &dy);
    port_rows(&a->z, MICA_V, &t, &z);
    port_rows(&a->z, MICA_D, &t, &dz);
    port_rows(&a->x, MICA_D, &t, &dx);
    port_rows(&a->res, MICA_D, &t, &dres);
    copy_rows(&t, &dy, &dres, a->O);
    if (!dx.any && !want_z) continue;
    int used = 1;
    if (a->Z) dz_rows(a, walk.sums, &t, &dy, &z, &dz, s.rows[0], rows);
    else used = factor(&dy, t.n, a->O, s.zeros, s.rows[0], rows);
    if (!dx.any) continue;
    term terms[1] = { { rows, t.w, a->O, a->w.v.stride[0], a->w.v.stride[1], packed[0], NULL } };
    gemm_out out;
    int straight = direct(&t, NULL, NULL, &dx, &out);
    pack_terms(terms, used && t.w, t.n, a->I, s.packed);
    TILE_COLUMNS(from, nn, a->I) {
      const gemm_out *end = straight && nn % VW == 0 ? &out : NULL;
      if (multiply_tile(terms, used && t.w, t.n, a->I, from, nn, s.panels, s.c, end)) continue;
      for (int64_t i = 0; i < t.n; i++) put(&dx, i, from, nn, s.c + i * LINEAR_COLS);
    }
  }
  return MICA_OK;
}

/* tangent of dz: dyt act'(z) + dy act''(z) zt */
static void dzt_rows(const mica_linear_args *a, int sums, const tile *t, const tile_rows *dy,
                     const tile_rows *dyt, const tile_rows *z, const tile_rows *zt, const tile_rows *dzt, float *buffer,
                     const float **rows) {
  static const float zero[LINEAR_COLS];
  float tmp[3][LINEAR_COLS], first[LINEAR_COLS], second[LINEAR_COLS];
  for (int64_t i = 0; i < t->n; i++) {
    float *to = dz_place(dzt, sums, i, buffer, a->O);
    rows[i] = to;
    TILE_COLUMNS(from, nn, a->O) {
      const float *at = take(z, i, from, nn, tmp[0]);
      act_table[a->act].both(at ? at : zero, first, second, (nn + VW - 1) / VW * VW);
      const float *g = take(dyt, i, from, nn, tmp[0]), *h = take(dy, i, from, nn, tmp[1]);
      const float *v = take(zt, i, from, nn, tmp[2]);
      if (!g) g = zero;
      if (!h || !v) h = v = zero;
      for (int64_t j = 0; j < nn; j++) to[from + j] = g[j] * first[j] + h[j] * second[j] * v[j];
      if (!dzt->any || to != dzt->at[i]) put(dzt, i, from, nn, to + from);
    }
  }
}

CPU_KERNEL(linear_backward_jvp) {
  const mica_linear_args *a = args;
  mica_status status = need_z(a, "backward_jvp");
  if (status < 0) return status;
  buffers s = cut_scratch(exec, a);
  row_walk walk = walk_start(a, MICA_BACKWARD_JVP, first, count);
  const float *packed[2];
  find_packed(exec, a, MICA_BACKWARD_JVP, packed);
  tile t;
  tile_rows dy, dyt, z, zt, dz, dzt, dxt, drest;
  const float *rows[2][LINEAR_ROWS];
  int want_z = a->Z && a->z.td.data;
  if (!want_z && !a->x.td.data && !a->res.td.data) return MICA_OK;
  while (next_tile(&walk, &t)) {
    port_rows(&a->y, MICA_D, &t, &dy);
    port_rows(&a->y, MICA_TD, &t, &dyt);
    port_rows(&a->z, MICA_V, &t, &z);
    port_rows(&a->z, MICA_T, &t, &zt);
    port_rows(&a->z, MICA_D, &t, &dz);
    port_rows(&a->z, MICA_TD, &t, &dzt);
    port_rows(&a->x, MICA_TD, &t, &dxt);
    port_rows(&a->res, MICA_TD, &t, &drest);
    copy_rows(&t, &dyt, &drest, a->O);
    if (!dxt.any && !want_z) continue;
    int used = 0, some = 1;
    if (a->Z) dzt_rows(a, walk.sums, &t, &dy, &dyt, &z, &zt, &dzt, s.rows[0], rows[0]);
    else some = factor(&dyt, t.n, a->O, s.zeros, s.rows[0], rows[0]);
    if (!dxt.any) continue;
    term terms[2];
    if (some && t.w) terms[used++] = (term){ rows[0], t.w, a->O, a->w.v.stride[0], a->w.v.stride[1], packed[0], NULL };
    if (t.wt && factor(a->Z ? &dz : &dy, t.n, a->O, s.zeros, s.rows[1], rows[1]))
      terms[used++] = (term){ rows[1], t.wt, a->O, a->w.t.stride[0], a->w.t.stride[1], packed[1], NULL };
    gemm_out out;
    int straight = direct(&t, NULL, NULL, &dxt, &out);
    pack_terms(terms, used, t.n, a->I, s.packed);
    TILE_COLUMNS(from, nn, a->I) {
      const gemm_out *end = straight && nn % VW == 0 ? &out : NULL;
      if (multiply_tile(terms, used, t.n, a->I, from, nn, s.panels, s.c, end)) continue;
      for (int64_t i = 0; i < t.n; i++) put(&dxt, i, from, nn, s.c + i * LINEAR_COLS);
    }
  }
  return MICA_OK;
}
