/* gradient_memory_rule_up.cuh: gradient_memory.h as a rule of the way back, common/cuda_memory_up.cuh */
#ifndef MICA_KERNELS_GRADIENT_MEMORY_RULE_UP_CUH
#define MICA_KERNELS_GRADIENT_MEMORY_RULE_UP_CUH

#include "gradient_memory/gradient_memory_rule.cuh"
#include "common/cuda_memory_up.cuh"

/* <G, S> of a thread; its tangent */
template <bool DUAL>
MEM_DEVICE float descent_dot(const mem_state<DUAL> &G, const mem_state<DUAL> &S) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < MEM_R; i++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) sum = fmaf(G.t[i][c], S.v[i][c], fmaf(G.v[i][c], S.t[i][c], sum));
      else sum = fmaf(G.v[i][c], S.v[i][c], sum);
    }
  return sum;
}

template <bool ANCHOR, bool DUAL>
MEM_DEVICE void mem_read_up(DESCENT, const mem_job &job, const DESCENT_STATE(S), const float (&d)[MEM_J],
                            const float (&d_t)[MEM_J], float (&x)[MEM_R]) {
  if (ANCHOR && job.held) mem_read_up_state(S[DESCENT::STATES - 1], d, d_t, x);
  else mem_read_up_state(S[0], d, d_t, x);
}

template <bool ANCHOR, bool DUAL>
MEM_DEVICE void mem_token_up(DESCENT, const mem_job &job, const mem_team &team, const float *buffer, int t, int r,
                             DESCENT_STATE(S), DESCENT_STATE(G), const mem_up_rows &to) {
  enum { A = ANCHOR ? 2 : 0 };               /* the matrix that the gradient is taken at */
  const bool            begins = ANCHOR && t % job.period == 0;
  const descent_factors f = descent_get_factors<DUAL>(job, buffer, r);
  float k[MEM_R], k_t[MEM_R], x[MEM_R], d[MEM_J], d_t[MEM_J], e[MEM_J], e_t[MEM_J], y[MEM_J], y_t[MEM_J];
  if constexpr (ANCHOR)
    if (begins) S[2] = S[0];
  /* of the reading */
  mem_get_rows(team, mem_token(job, buffer, MEM_Q, 0, r), k);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_Q, 1, r), k_t);
  mem_get_columns(team, mem_token(job, buffer, MEM_D, 0, r), d);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, MEM_D, 1, r), d_t);
  if (ANCHOR && job.held) mem_write(G[A], k, k_t, d, d_t);
  else mem_write(G[0], k, k_t, d, d_t);
  /* of the factors */
  descent_add(G[1], G[0]);
  mem_fold_cell(team, descent_dot(G[0], S[0]), 1, to.a_cell);
  descent_fade(G[0], f.a, f.a_t);
  mem_fold_cell(team, descent_dot(G[1], S[1]), 1, to.m_cell);
  /* of what is written, y: of e, which is v's too */
  mem_get_rows(team, mem_token(job, buffer, MEM_K, 0, r), k);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_K, 1, r), k_t);
  mem_get_columns(team, mem_token(job, buffer, MEM_E, 0, r), e);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, MEM_E, 1, r), e_t);
  float of_beta = 0;
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    float w, w_t;
    mem_written_up(team, G[1], k, k_t, c, w, w_t);
    of_beta = DUAL ? fmaf(w_t, e[c], fmaf(w, e_t[c], of_beta)) : fmaf(w, e[c], of_beta);
    y[c] = f.beta * w;
    y_t[c] = DUAL ? fmaf(f.beta_t, w, f.beta * w_t) : 0.0f;
    if (team.lk == 0) to.v[MEM_J * team.cg + c] = DUAL ? y_t[c] : y[c];
    if (DUAL) e_t[c] = fmaf(f.beta_t, e[c], f.beta * e_t[c]); /* e becomes u */
    e[c] *= f.beta;
  }
  mem_fold_cell(team, of_beta, team.LK, to.beta);
  /* of keys: from what is written, and from what the key read */
#pragma unroll
  for (int i = 0; i < MEM_R; i++) {
    x[i] = 0;
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) {
        x[i] = fmaf(G[1].t[i][c], e[c], fmaf(G[1].v[i][c], e_t[c], x[i]));
        x[i] = fmaf(-S[A].t[i][c], y[c], fmaf(-S[A].v[i][c], y_t[c], x[i]));
      } else {
        x[i] = fmaf(-S[A].v[i][c], y[c], fmaf(G[1].v[i][c], e[c], x[i]));
      }
    }
  }
  mem_fold(team, x, to.k);
#pragma unroll
  for (int c = 0; c < MEM_J; c++) y[c] = -y[c], y_t[c] = -y_t[c];
  mem_write(G[A], k, k_t, y, y_t);
  descent_fade(G[1], f.m, f.m_t);
  if constexpr (ANCHOR)
    if (begins) {
      descent_add(G[0], G[2]);
      G[2] = mem_state<DUAL>{};
    }
}

#endif
