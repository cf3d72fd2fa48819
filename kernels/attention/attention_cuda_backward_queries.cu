/* the queries' part of attention's backward on CUDA */
#include "attention/attention_up.cuh"

mica_status attn_backward_queries(attn_job *job, const attn_plan &plan, void *stream) {
  const int columns = attn_columns(&job->a);
  return columns == 32   ? attn_run_queries<attn_square, 32, false>(job, plan, stream)
         : columns == 64 ? attn_run_queries<attn_square, 64, false>(job, plan, stream)
                         : attn_run_queries<attn_square, 128, false>(job, plan, stream);
}
