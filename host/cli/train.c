/* `mica train`: start or resume a run, with a progress line. */
#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/source.h"
#include "host/io/json.h"

static mica_trainer *volatile stopping; /* what Ctrl-C stops */

static void on_signal(int number) {
  mica_trainer *trainer = stopping;
  if (trainer) mica_trainer_stop(trainer);
  signal(number, SIG_DFL); /* a second Ctrl-C kills */
}

typedef struct display {
  int    terminal, quiet;
  double last;                   /* when a line was last shown, s */
  mica_progress progress;
} display;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void format_seconds(double s, char text[32]) {
  if (!(s >= 0) || s > 1e8) snprintf(text, 32, "?");
  else if (s < 90) snprintf(text, 32, "%.0f s", s);
  else if (s < 5400) snprintf(text, 32, "%d:%02d min", (int)s / 60, (int)s % 60);
  else snprintf(text, 32, "%d:%02d h", (int)s / 3600, (int)s / 60 % 60);
}

static void show(display *d, const mica_progress *p) {
  char eta[32];
  format_seconds(p->eta, eta);
  fprintf(stderr, "%sstep %lld/%lld  loss %.4f", d->terminal ? "\r\033[K" : "", (long long)p->step, (long long)p->steps,
          p->loss);
  if (isfinite(p->excess)) fprintf(stderr, "  excess over exact %.4f", p->excess);
  fprintf(stderr, "  %.0f tasks/s  ETA %s", p->tasks_per_s, eta);
  if (p->quarantined) fprintf(stderr, "  %lld tasks left out", (long long)p->quarantined);
  if (!d->terminal) fputc('\n', stderr);
}

static void on_progress(void *user, const mica_progress *p) {
  display *d = user;
  double   t = now();
  /* the exact loss is not computed at every step: keep the last one for the line */
  double excess = isfinite(p->excess) ? p->excess : d->progress.excess;
  d->progress = *p;
  d->progress.excess = excess;
  if (d->quiet || (t - d->last < (d->terminal ? 0.2 : 10) && p->step < p->steps)) return;
  d->last = t;
  show(d, &d->progress);
}

static int print_summary(const micac_args *args, const mica_trainer_info *info, const display *d) {
  micah_json json = { 0 };
  const char *text;
  micah_json_object(&json, NULL);
  micah_json_string(&json, "run", info->run);
  micah_json_int(&json, "step", info->step);
  micah_json_int(&json, "steps", info->steps);
  micah_json_bool(&json, "finished", info->finished || info->step >= info->steps);
  micah_json_bool(&json, "resumed", info->resumed);
  micah_json_real(&json, "loss", d->progress.step ? d->progress.loss : NAN);
  micah_json_real(&json, "excess", d->progress.step ? d->progress.excess : NAN);
  micah_json_real(&json, "seconds", d->progress.step ? d->progress.seconds : 0);
  micah_json_int(&json, "params", info->params);
  micah_json_string(&json, "inner", info->inner);
  micah_json_int(&json, "activation_bytes", info->activation_bytes);
  micah_json_int(&json, "peak_bytes", info->peak_bytes);
  micah_json_int(&json, "gradient_bytes", info->gradient_bytes);
  micah_json_int(&json, "state_bytes", info->state_bytes);
  micah_json_int(&json, "quarantined", d->progress.quarantined);
  micah_json_end(&json);
  mica_status status = micah_json_finish(&json, &text);
  if (status >= 0) printf("%s\n", text);
  micah_json_free(&json);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}

static void print_profile(void *user, const char *path, const char *op, int face, double seconds, int64_t calls) {
  (void)user;
  fprintf(stderr, "%10.3f ms %6lld  %-14s %-13s %s\n", calls ? 1e3 * seconds / (double)calls : 0, (long long)calls, op,
          mica_face_name(face), path);
}

static int run(micac_args *args) {
  const char *resume = micac_option(args, "resume"), *out = micac_option(args, "out");
  if (resume && (out || args->n_positional))
    return micac_usage(args, "--resume RUN stands alone: the run folder has its configuration");
  if (!resume && args->n_positional != 1)
    return micac_usage(args, "expected one configuration file, got %d", args->n_positional);
  if (!resume && !out) return micac_usage(args, "--out RUN is needed: the folder of the new run");
  mica_source source = MICA_SOURCE_INIT;
  mica_context_options context = micac_context_options();
  source.context = &context;
  source.config = resume ? NULL : args->positional[0];
  source.run = resume ? resume : out;
  source.overrides = (const char *const *)args->overrides;
  source.n_overrides = args->n_overrides;
  mica_trainer *trainer = NULL;
  mica_status status = mica_trainer_create(&source, resume != NULL, &trainer);
  if (status < 0) return micac_fail(args, status);
  mica_trainer_info info;
  status = mica_trainer_get_info(trainer, &info);
  display d = { .terminal = isatty(STDERR_FILENO), .quiet = micac_option(args, "quiet") != NULL, .last = now() };
  d.progress.excess = NAN;
  int profile = micac_option(args, "profile") != NULL;
  if (status >= 0 && !d.quiet)
    fprintf(stderr, "%s on %s: %lld parameters, %lld steps of %lld tasks, %d threads%s%s\n", info.model, info.family,
            (long long)info.params, (long long)info.steps, (long long)info.tasks_per_step, info.threads,
            micac_inner(info.inner),
            info.finished ? "; this run had finished" : info.resumed ? "; resumed" : "");
  if (status >= 0 && profile) status = mica_trainer_profile(trainer, 1, NULL, NULL);
  if (status >= 0 && !info.finished) {
    stopping = trainer;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    status = mica_trainer_run(trainer, on_progress, &d);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    stopping = NULL;
  }
  if (d.terminal && !d.quiet && d.progress.step) fputc('\n', stderr);
  int code = status < 0 ? micac_fail(args, status) : MICAC_OK;
  if (profile) mica_trainer_profile(trainer, 0, print_profile, NULL);
  if (status >= 0 || status == MICA_ERR_INTERRUPTED) {
    mica_trainer_get_info(trainer, &info);
    if (args->json) print_summary(args, &info, &d);
    if (status == MICA_ERR_INTERRUPTED)
      fprintf(stderr, "saved at step %lld of %lld; go on with: mica train --resume %s\n", (long long)info.step,
              (long long)info.steps, source.run);
    else if (!d.quiet && !args->json)
      fprintf(stderr, "weights: %s/last.safetensors\nnext: mica report %s\n", source.run, source.run);
  }
  mica_trainer_destroy(trainer);
  return code;
}

const micac_command micac_train = {
  .name = "train",
  .summary = "meta-train what a configuration describes, or resume a run",
  .usage = "CONFIG --out RUN [KEY=VALUE ...] | --resume RUN [KEY=VALUE ...]",
  .help =
      "  CONFIG       YAML; docs/recipes/ has some. every key can be overridden: KEY=VALUE or --KEY VALUE\n"
      "  --out RUN    folder of the new run: config.yaml, metrics.jsonl, checkpoints, last.safetensors\n"
      "  --resume RUN go on from the newest checkpoint, to the same bits as if never stopped\n"
      "  --quiet      no progress\n"
      "  --profile    at the end, milliseconds by operation and face\n"
      "  --json       one JSON object on standard output at the end\n"
      "\ndevice=cuda computes on a GPU, devices=N on N of them (a power of two), to the same bits for every N.\n"
      "Ctrl-C saves and says how to go on.\n"
      "\nexamples:\n"
      "  mica train docs/recipes/linear_regression.yaml --out runs/linreg\n"
      "  mica train docs/recipes/linear_regression.yaml --out runs/small steps=500 model.layers=2 seed=7\n"
      "  mica train docs/recipes/linear_regression.yaml --out runs/gpu device=cuda devices=2\n"
      "  mica train --resume runs/linreg\n",
  .options = "out: resume: quiet profile json",
  .overrides = 1,
  .run = run,
};
