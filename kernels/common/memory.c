#include "common/memory.h"

#include "common/rows.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_to(int64_t n, int64_t by) { return (n + by - 1) / by * by; }

/* longer chunks do more work inside of a chunk, shorter ones touch the state more often */
int64_t micak_memory_chunk(const micak_memory *m) {
  int64_t chosen = m->form == MICAK_MEMORY_RECURRENT ? 16 : m->decay ? 16 : m->K + m->V < 64 ? 24 : 48;
  return least(m->chunk > 0 ? m->chunk : chosen, m->T > 0 ? m->T : 1);
}
static int64_t chunks(const micak_memory *m, int64_t C) { return m->T > C ? (m->T + C - 1) / C : 1; }
int64_t micak_memory_chunks(const micak_memory *m) { return chunks(m, micak_memory_chunk(m)); }
int micak_memory_blocked(const micak_memory *m) {
  return m->form != MICAK_MEMORY_RECURRENT && !m->chunk && !m->decay && !m->keys && m->K <= MICAK_BLOCK_MOST &&
         m->V <= MICAK_BLOCK_MOST;
}

int micak_memory_lanes(const micak_memory *m, int64_t T) {
  return m->form != MICAK_MEMORY_RECURRENT && !m->chunk && !m->decay && !m->keys && T > 0 && T <= MICAK_LANES_TOKENS &&
         T * (m->K + m->V) <= MICAK_LANES_CELLS;
}
/* all matrices of memory_lanes.h, of the longest pair that may go so, with tangents */
static int64_t lanes_floats(const micak_memory *m) {
  int64_t T = least(least(m->T, MICAK_LANES_TOKENS), MICAK_LANES_CELLS / (m->K + m->V));
  return micak_memory_lanes(m, T) ? 16 * 2 * T * (3 * m->K + 7 * m->V + 4 * T + 2) : 0;
}

/* ---- scratch ---- */

enum { ROWS_K = 1, ROWS_V, ROWS_C, ROWS_1 };
enum { ONCE, KEPT, STEPS };                  /* copies: one; one a chunk on the way back; one a token */
enum { ALL = 1, BACK = 2, DELTA = 4, DECAY = 8, BLOCKS = 16, PLAIN = 32 }; /* needed: always, or only if all of these hold */
typedef struct buffer_row {
  uint8_t rows, cols, copies, panels, needs;
} buffer_row;
static const buffer_row buffers[MICAK_M_COUNT] = {
  [MICAK_M_S] = { ROWS_K, ROWS_V, KEPT, 0, ALL },      [MICAK_M_Q] = { ROWS_C, ROWS_K, ONCE, 0, ALL },
  [MICAK_M_K] = { ROWS_C, ROWS_K, ONCE, 0, ALL },      [MICAK_M_V] = { ROWS_C, ROWS_V, ONCE, 0, ALL },
  [MICAK_M_BETA] = { ROWS_1, ROWS_C, ONCE, 0, DELTA }, [MICAK_M_A] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },
  [MICAK_M_E] = { ROWS_C, ROWS_V, KEPT, 0, ALL },      [MICAK_M_U] = { ROWS_C, ROWS_V, KEPT, 0, ALL },
  [MICAK_M_KT] = { ROWS_K, ROWS_C, ONCE, 1, ALL },     [MICAK_M_GRAM] = { ROWS_C, ROWS_C, KEPT, 0, DELTA },
  [MICAK_M_M] = { ROWS_C, ROWS_C, ONCE, 0, ALL },      [MICAK_M_TMP] = { ROWS_C, ROWS_V, ONCE, 0, ALL },
  [MICAK_M_O] = { ROWS_C, ROWS_V, ONCE, 0, ALL },      [MICAK_M_GAMMA] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },
  [MICAK_M_KG] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },   [MICAK_M_QG] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },
  [MICAK_M_KD] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },   [MICAK_M_W] = { ROWS_C, ROWS_K, ONCE, 0, DECAY },
  [MICAK_M_DO] = { ROWS_C, ROWS_V, ONCE, 0, BACK },    [MICAK_M_DU] = { ROWS_C, ROWS_V, ONCE, 0, BACK },
  [MICAK_M_NY] = { ROWS_C, ROWS_V, ONCE, 0, BACK | DELTA }, [MICAK_M_DBETA] = { ROWS_1, ROWS_C, ONCE, 0, BACK | DELTA },
  [MICAK_M_UT] = { ROWS_V, ROWS_C, ONCE, 1, BACK },    [MICAK_M_DM] = { ROWS_C, ROWS_C, ONCE, 0, BACK },
  [MICAK_M_DGRAM] = { ROWS_C, ROWS_C, ONCE, 0, BACK | DELTA },
  [MICAK_M_DQ] = { ROWS_C, ROWS_K, ONCE, 0, BACK },    [MICAK_M_DK] = { ROWS_C, ROWS_K, ONCE, 0, BACK },
  [MICAK_M_DA] = { ROWS_C, ROWS_K, ONCE, 0, BACK | DECAY }, [MICAK_M_DKG] = { ROWS_C, ROWS_K, ONCE, 0, BACK | DECAY },
  [MICAK_M_DQG] = { ROWS_C, ROWS_K, ONCE, 0, BACK | DECAY }, [MICAK_M_DKD] = { ROWS_C, ROWS_K, ONCE, 0, BACK | DECAY },
  [MICAK_M_OMEGA] = { ROWS_1, ROWS_K, ONCE, 0, BACK | DECAY }, [MICAK_M_ST] = { ROWS_V, ROWS_K, ONCE, 1, BACK | PLAIN },
  [MICAK_M_G] = { ROWS_K, ROWS_V, ONCE, 0, BACK },     [MICAK_M_GT] = { ROWS_V, ROWS_K, ONCE, 1, BACK | PLAIN },
  [MICAK_M_STEPS] = { ROWS_K, ROWS_V, STEPS, 0, BACK }, [MICAK_M_DOT] = { ROWS_V, ROWS_C, ONCE, 0, BACK | BLOCKS },
  [MICAK_M_YT] = { ROWS_V, ROWS_C, ONCE, 0, BACK | DELTA | BLOCKS },
};

static void lay_out(const micak_memory *m, int face, int64_t vw, int64_t C, int blocks, micak_memory_layout *layout) {
  int back = micak_memory_back(face), recurrent = m->form == MICAK_MEMORY_RECURRENT;
  int64_t tangents = micak_memory_dual(face) ? 2 : 1, pad = blocks ? vw : 1;
  int64_t n[] = { 0, round_to(m->K, pad), round_to(m->V + m->keys, pad), C, 1 };
  int64_t copies[] = { 1, back ? chunks(m, C) : 1, C };
  int has = ALL | (back ? BACK : 0) | (m->delta ? DELTA : 0) | (m->decay ? DECAY : 0) | (blocks ? BLOCKS : PLAIN);
  layout->total = 0;
  for (int i = 0; i < MICAK_M_COUNT; i++) {
    const buffer_row *row = &buffers[i];
    int panels = vw > 1 && row->panels && !blocks;
    int64_t wide = panels ? 2 * vw : vw, cols = round_to(n[row->cols], wide);
    layout->at[i] = layout->total;
    layout->ld[i] = panels ? wide : cols;
    layout->panel[i] = vw > 1 ? (panels ? wide * n[row->rows] : wide * 2) : 0;
    layout->size[i] = round_to(n[row->rows] * cols, vw > 1 ? 16 : 1);
    int wanted = (row->needs & has) == row->needs && (row->copies != STEPS || recurrent);
    layout->total += wanted ? layout->size[i] * copies[row->copies] * tangents : 0;
  }
}
void micak_memory_layout_of(const micak_memory *m, int face, int64_t vw, micak_memory_layout *layout) {
  lay_out(m, face, vw, micak_memory_chunk(m), 0, layout);
}
void micak_memory_block_layout(const micak_memory *m, int face, micak_memory_layout *layout) {
  lay_out(m, face, MICAK_MEMORY_BLOCK, MICAK_MEMORY_BLOCK, 1, layout);
}

/* ---- cuts ---- */

int micak_memory_sums(const micak_memory *m, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = micak_memory_back(face), faces[2], n = micak_faces(face, faces), sums = 0;
  const mica_port *down[] = { m->out, m->state_out, m->norm_out };
  const mica_port *up[] = { m->q, m->k, m->v, m->beta, m->a, m->state_in, m->norm_in };
  for (int i = 0; i < n; i++)
    sums |= micak_ports_sum(back ? up : down, back ? MICA_COUNT(up) : MICA_COUNT(down), bit[faces[i]], m->B);
  return sums;
}

/* multiplications and additions of one (task, head) pair */
static double pair_flop(const micak_memory *m, int face) {
  static const double times[MICA_NSLOT] = { 1, 3, 3, 8, 3, 9 };
  double T = (double)m->T, K = (double)m->K, V = (double)(m->V + m->keys);
  double C = (double)(micak_memory_blocked(m) ? MICAK_MEMORY_BLOCK : micak_memory_chunk(m));
  double token = (m->delta ? 6 : 4) * K * V;
  if (m->form != MICAK_MEMORY_RECURRENT) token += C * (K + V) * (m->delta ? 2 : 1);
  if (m->decay) token += m->form == MICAK_MEMORY_RECURRENT ? K * V : 3 * C * K;
  return times[face] * T * token;
}

void micak_memory_split(const micak_memory *m, int face, mica_split *split) {
  micak_memory_layout layout;
  int sums = micak_memory_sums(m, face);
  double flop = pair_flop(m, face) * (sums ? (double)m->B : 1);
  split->units = (sums ? 1 : m->B) * m->H;
  if (m->B == 0) split->units = 0;
  split->grain = flop > 5e5 ? 1 : (int64_t)(5e5 / (flop + 1)) + 1;
  /* what runs is known on the machine alone: room for either way */
  micak_memory_layout_of(m, face, 16, &layout);
  int64_t most = layout.total;
  micak_memory_block_layout(m, face, &layout);
  if (micak_memory_blocked(m) && layout.total > most) most = layout.total;
  if (lanes_floats(m) > most) most = lanes_floats(m);
  if (micak_memory_lanes(m, m->T)) split->grain = round_to(split->grain, 16); /* whole vectors of pairs */
  split->scratch_bytes = (size_t)most * sizeof(float);
  split->rows = 0;
}

void micak_memory_cost(const micak_memory *m, int face, double *flop, double *bytes) {
  static const double moved[MICA_NFACE] = { 1, 2, 2, 4 };
  double pairs = (double)(m->B * m->H), token = (double)(2 * m->K + 2 * m->V + (m->beta ? 1 : 0));
  if (m->decay) token += m->decay == MICAK_DECAY_CHANNEL ? (double)m->K : 1;
  *flop = pairs * pair_flop(m, face);
  *bytes = moved[face] * pairs * (double)m->T * token * (double)sizeof(float);
}

mica_status micak_memory_check(const micak_memory *m) {
  if (m->H == 0 || m->K == 0 || m->V == 0 || m->K > MICAK_MEMORY_MOST || m->V > MICAK_MEMORY_MOST)
    return mica_error(MICA_ERR_SHAPE, "%s: H = %lld, K = %lld, V = %lld, expected at least one head, 1 <= K, V <= %d",
                      m->name, (long long)m->H, (long long)m->K, (long long)m->V, MICAK_MEMORY_MOST);
  return MICA_OK;
}
