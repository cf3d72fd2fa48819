/* gradient_memory_rule.cuh: gradient_memory.h as a rule of the walks of common/cuda_memory.cuh. the matrices are S, its last
 * change Y and, where gradients are taken at another than S (ANCHOR), S_a. derivation: README.md. */
#ifndef MICA_KERNELS_GRADIENT_MEMORY_RULE_CUH
#define MICA_KERNELS_GRADIENT_MEMORY_RULE_CUH

#define MEM_COLUMNS 1
#include "common/cuda_memory.cuh"
#include "gradient_memory/gradient_memory_internal.h"

template <bool ANCHOR_, bool DUAL_>
struct mem_descent {
  enum { DELTA = 1, DECAY = 1, DUAL = DUAL_, MOMENT = 1, ANCHOR = ANCHOR_, STATES = 2 + ANCHOR, NEEDS = 1 };
  enum { WRITES = 1 << MEM_K | 1 << MEM_V | 1 << MEM_BETA | 1 << MEM_A | 1 << MEM_M };
};
#define DESCENT mem_descent<ANCHOR, DUAL>
#define DESCENT_STATE(name) mem_state<DUAL> (&name)[DESCENT::STATES]

/* numbers of token r with their tangents */
struct descent_factors {
  float beta, a, m, beta_t, a_t, m_t;
};
template <bool DUAL>
MEM_DEVICE descent_factors descent_get_factors(const mem_job &job, const float *buffer, int r) {
  descent_factors f = { *mem_token(job, buffer, MEM_BETA, 0, r), *mem_token(job, buffer, MEM_A, 0, r),
                        *mem_token(job, buffer, MEM_M, 0, r), 0, 0, 0 };
  if (DUAL) {
    f.beta_t = *mem_token(job, buffer, MEM_BETA, 1, r), f.a_t = *mem_token(job, buffer, MEM_A, 1, r);
    f.m_t = *mem_token(job, buffer, MEM_M, 1, r);
  }
  return f;
}
/* S = a S */
template <bool DUAL>
MEM_DEVICE void descent_fade(mem_state<DUAL> &S, float a, float a_t) {
#pragma unroll
  for (int i = 0; i < MEM_R; i++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) S.t[i][c] = fmaf(a_t, S.v[i][c], a * S.t[i][c]);
      S.v[i][c] *= a;
    }
}
/* S += Y */
template <bool DUAL>
MEM_DEVICE void descent_add(mem_state<DUAL> &S, const mem_state<DUAL> &Y) {
#pragma unroll
  for (int i = 0; i < MEM_R; i++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) S.t[i][c] += Y.t[i][c];
      S.v[i][c] += Y.v[i][c];
    }
}
template <bool KNOWN, bool ANCHOR, bool DUAL>
MEM_DEVICE void mem_advance(DESCENT, const mem_job &job, const mem_team &team, const float *buffer, int t, int r,
                            DESCENT_STATE(S), float (&e)[MEM_J], float (&e_t)[MEM_J]) {
  const int             from = KNOWN ? MEM_E : MEM_V;
  const descent_factors f = descent_get_factors<DUAL>(job, buffer, r);
  float                 k[MEM_R], k_t[MEM_R], u[MEM_J], u_t[MEM_J];
  if constexpr (ANCHOR)
    if (t % job.period == 0) S[2] = S[0];
  mem_get_rows(team, mem_token(job, buffer, MEM_K, 0, r), k);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_K, 1, r), k_t);
  mem_get_columns(team, mem_token(job, buffer, from, 0, r), e);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, from, 1, r), e_t);
  if (!KNOWN) mem_miss(team, S[ANCHOR ? 2 : 0], k, k_t, e, e_t);
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    u[c] = f.beta * e[c];
    if (DUAL) u_t[c] = fmaf(f.beta_t, e[c], f.beta * e_t[c]);
  }
  descent_fade(S[1], f.m, f.m_t);
  mem_write(S[1], k, k_t, u, u_t);
  descent_fade(S[0], f.a, f.a_t);
  descent_add(S[0], S[1]);
}
template <bool ANCHOR, bool DUAL>
MEM_DEVICE void mem_read(DESCENT, const mem_job &job, const mem_team &team, const DESCENT_STATE(S), const float (&q)[MEM_R],
                         const float (&q_t)[MEM_R], float (&x)[MEM_J], float (&x_t)[MEM_J]) {
  if (ANCHOR && job.held) mem_read_state(job, team, S[DESCENT::STATES - 1], q, q_t, x, x_t);
  else mem_read_state(job, team, S[0], q, q_t, x, x_t);
}
static inline micak_memory gradient_memory_of(const mica_gradient_memory_args *a) {
  micak_memory m = {};
  m.name = "gradient_memory";
  m.B = a->B, m.T = a->T, m.H = a->H, m.K = a->K, m.V = a->V;
  m.delta = 1, m.decay = MICAK_DECAY_SCALAR, m.period = (int)a->period, m.held = a->read == MEMORY_HELD;
  m.q = &a->q, m.k = &a->k, m.v = &a->v, m.beta = &a->beta, m.a = &a->decay, m.m = &a->momentum, m.out = &a->out;
  m.state_in = &a->state_in, m.state_out = &a->state_out, m.moment_in = &a->moment_in, m.moment_out = &a->moment_out;
  return m;
}
/* are gradients taken, or queries answered, at another matrix than S before the token or after it? */
static inline bool gradient_memory_anchored(const micak_memory *m) { return m->period != 1 || m->held; }

#endif
