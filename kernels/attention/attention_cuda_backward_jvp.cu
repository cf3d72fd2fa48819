/* attention's backward_jvp on CUDA: k and v (and all else where one tile holds the keys), then the rest */
#include "attention/attention_up.cuh"

extern "C" mica_status micak_attention_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  if (a->B <= 0 || a->H <= 0) return MICA_OK;
  attn_choice choice;
  if (mica_status status = attn_choose(a, MICA_BACKWARD_JVP, &choice); status < 0 || choice.mma)
    return choice.mma ? attn_mma_backward_jvp(exec, a) : status;
  attn_job        job = attn_job_of(a);
  const attn_plan plan = attn_plan_of(a, true);
  const int       columns = attn_columns(a);
  mica_status     status = MICA_OK;
  if (attn_sums(a, true)) job.sums = static_cast<double *>(exec->scratch);
  if (a->k.td.data || a->v.td.data || (plan.whole && (a->q.td.data || job.sums)))
    status = plan.lone                     ? attn_run_keys<attn_lone, 32, true>(&job, plan, exec->stream)
             : plan.small && columns == 32 ? attn_run_keys<attn_small, 32, true>(&job, plan, exec->stream)
             : plan.small                  ? attn_run_keys<attn_small, 64, true>(&job, plan, exec->stream)
             : columns == 32               ? attn_run_keys<attn_square, 32, true>(&job, plan, exec->stream)
             : columns == 64               ? attn_run_keys<attn_square, 64, true>(&job, plan, exec->stream)
                                           : attn_run_keys<attn_square, 128, true>(&job, plan, exec->stream);
  if (status >= 0 && !plan.whole && (a->q.td.data || job.sums))
    status = attn_backward_jvp_queries(&job, plan, exec->stream);
  return status < 0 ? status : attn_extras_cotangents(job, plan, true, exec->stream);
}
extern "C" void micak_attention_backward_jvp_cuda_split(const void *args, mica_split *split) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = (size_t)attn_sums(a, true) * sizeof(double);
}
