/* attention's backward on CUDA: k and v (and all else where one tile holds the keys), then the rest */
#include "attention/attention_up.cuh"

extern "C" mica_status micak_attention_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  if (a->B <= 0 || a->H <= 0) return MICA_OK;
  attn_choice choice;
  mica_status status = attn_choose(a, MICA_BACKWARD, &choice);
  if (status >= 0 && choice.wgmma) status = choice.wgmma(exec, a, choice.least);
  if (status < 0 || !choice.rest) return status;
  if (choice.mma) return attn_mma_backward(exec, a, choice.least);
  attn_job job = attn_job_of(a);
  job.longer = choice.least;
  const attn_plan plan = attn_plan_of(a, false);
  const int       columns = attn_columns(a);
  if (attn_sums(a, false)) job.sums = static_cast<double *>(exec->scratch);
  if (a->k.d.data || a->v.d.data || (plan.whole && (a->q.d.data || job.sums)))
    status = plan.small && columns == 32 ? attn_run_keys<attn_small, 32, false>(&job, plan, exec->stream)
             : plan.small                ? attn_run_keys<attn_small, 64, false>(&job, plan, exec->stream)
             : columns == 32             ? attn_run_keys<attn_square, 32, false>(&job, plan, exec->stream)
             : columns == 64             ? attn_run_keys<attn_square, 64, false>(&job, plan, exec->stream)
                                         : attn_run_keys<attn_square, 128, false>(&job, plan, exec->stream);
  if (status >= 0 && !plan.whole && (a->q.d.data || job.sums)) status = attn_backward_queries(&job, plan, exec->stream);
  return status < 0 ? status : attn_extras_cotangents(job, plan, false, exec->stream);
}
extern "C" void micak_attention_backward_cuda_split(const void *args, mica_split *split) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = (size_t)attn_sums(a, false) * sizeof(double);
}
extern "C" void micak_attention_backward_bf16_cuda_split(const void *args, mica_split *split) {
  micak_attention_backward_cuda_split(args, split);
  const size_t numbers = attn_wgmma_scratch(static_cast<const mica_attention_args *>(args));
  if (split->scratch_bytes < numbers) split->scratch_bytes = numbers;
}
