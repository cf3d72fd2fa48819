/* the main job against the installed library: meta-train, evaluate beside the exact predictor, look at the weights.
 *
 *   cc train.c $(pkg-config --cflags --libs mica) -o train
 *   ./train linear_regression.yaml runs/from_c steps=200 */
#include <stdio.h>

#include "mica/mica.h"

static void on_progress(void *user, const mica_progress *p) {
  (void)user;
  if (p->step % 50 == 0 || p->step == p->steps)
    printf("step %lld/%lld  loss %.4f  %.0f tasks/s\n", (long long)p->step, (long long)p->steps, p->loss, p->tasks_per_s);
}

static int fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, mica_last_error());
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: train CONFIG RUN [KEY=VALUE ...]\n");
    return 2;
  }
  mica_source source = MICA_SOURCE_INIT;
  source.config = argv[1];
  source.run = argv[2];
  source.overrides = (const char *const *)argv + 3;
  source.n_overrides = argc - 3;

  mica_trainer *trainer = NULL;
  if (mica_trainer_create(&source, 0, &trainer) < 0) return fail("create");
  mica_status status = mica_trainer_run(trainer, on_progress, NULL);
  mica_trainer_destroy(trainer);
  if (status < 0) return fail("train");

  mica_evaluate_options options = MICA_EVALUATE_OPTIONS_INIT;
  options.source.run = argv[2];
  const mica_evaluation *result = NULL;
  if (mica_evaluate(&options, &result) < 0) return fail("evaluate");
  printf("test loss %.4f, exact predictor (%s) %.4f\n", result->loss, result->exact ? result->exact : "none",
         result->exact_loss);
  mica_evaluation_destroy(result);
  return 0;
}
