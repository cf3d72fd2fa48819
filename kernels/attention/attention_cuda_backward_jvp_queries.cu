/* the queries' part of attention's backward_jvp on CUDA */
#include "attention/attention_up.cuh"

mica_status attn_backward_jvp_queries(attn_job *job, const attn_plan &plan, void *stream) {
  const int columns = attn_columns(&job->a);
  if (plan.lone) return attn_run_queries<attn_lone, 64, true>(job, plan, stream);
  return columns == 32   ? attn_run_queries<attn_square, 32, true>(job, plan, stream)
         : columns == 64 ? attn_run_queries<attn_square, 64, true>(job, plan, stream)
                         : attn_run_queries<attn_square, 128, true>(job, plan, stream);
}
