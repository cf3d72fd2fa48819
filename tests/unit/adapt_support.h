/* adapt_support.h: first derivatives of programs whose third derivatives are not there, against central differences */
#ifndef MICA_TEST_ADAPT_SUPPORT_H
#define MICA_TEST_ADAPT_SUPPORT_H

#include "program_support.h"

/* L = <outputs, their seeds>, after a run */
static inline double seeded_sum(const bench *b) {
  double sum = 0;
  for (int k = 0; k < b->n_outputs; k++)
    for (int64_t i = 0; i < b->output_count[k]; i++) sum += b->output[k][0][i] * b->output[k][1][i];
  return sum;
}

/* backward (and jvp, where `tangents`) against central differences of forward along the random direction t */
static inline void check_first(mica_context *context, bench *b, uint64_t seed, int tangents, double tolerance) {
  bench up = *b, down = *b, both = *b;
  double h = 1e-5, slope = 0, left = 0;
  b->passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  up.passes = down.passes = MICA_PASS_FORWARD;
  both.passes = MICA_PASS_FORWARD | MICA_PASS_JVP;
  bench_fill(b, seed);
  bench_fill(&up, seed);
  bench_fill(&down, seed);
  shift(&up, b, h);
  shift(&down, b, -h);
  /* the seeds do not move */
  for (int k = 0; k < b->n_outputs; k++)
    for (int64_t i = 0; i < b->output_count[k]; i++) up.output[k][1][i] = down.output[k][1][i] = b->output[k][1][i];
  bench_run(context, b);
  bench_run(context, &up);
  bench_run(context, &down);
  for (int64_t i = 0; i < b->param_count; i++) slope += b->param[1][i] * b->param[2][i];
  for (int k = 0; k < b->n_inputs; k++)
    for (int64_t i = 0; !b->index[k] && i < b->input_count[k]; i++) slope += b->input[k][1][i] * b->input[k][2][i];
  left = (seeded_sum(&up) - seeded_sum(&down)) / (2 * h);
  near(slope, left, tolerance, "<d, t> against differences", 0);
  if (!(fabs(left) > 1e-3)) fail_msg("the slope %g is too small to say anything", left);
  if (tangents) {
    bench_fill(&both, seed);
    bench_run(context, &both);
    for (int k = 0; k < b->n_outputs; k++)
      for (int64_t i = 0; i < b->output_count[k]; i++)
        near(both.output[k][2][i], (up.output[k][0][i] - down.output[k][0][i]) / (2 * h), tolerance, "output.t", i);
    bench_free(&both);
  }
  bench_free(&up);
  bench_free(&down);
}

#endif
