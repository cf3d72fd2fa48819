/* `mica report`: one self-contained page about a run, with pictures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/source.h"
#include "host/io/file.h"
#include "host/io/html.h"
#include "host/io/json.h"
#include "host/io/jsonl.h"

/* columns of metrics.jsonl that the page draws */
enum { STEP, LOSS, EXACT, RATE, LR, NORM, N_COLUMNS };
static const char *const columns[N_COLUMNS] = { "step", "loss", "exact", "tasks_per_s", "lr", "grad_norm" };

typedef struct metrics {
  double *column[N_COLUMNS];
  int64_t count, capacity;
} metrics;

static void metrics_free(metrics *m) {
  for (int i = 0; i < N_COLUMNS; i++) free(m->column[i]);
}

static mica_status metrics_grow(metrics *m) {
  if (m->count < m->capacity) return MICA_OK;
  int64_t capacity = m->capacity ? 2 * m->capacity : 1024;
  for (int i = 0; i < N_COLUMNS; i++) {
    double *grown = realloc(m->column[i], (size_t)capacity * sizeof *grown);
    if (!grown) return mica_error(MICA_ERR_MEMORY, "no memory for %lld lines of metrics", (long long)capacity);
    m->column[i] = grown;
  }
  m->capacity = capacity;
  return MICA_OK;
}

static mica_status metrics_read(const char *path, metrics *m) {
  micah_jsonl  lines = { 0 };
  const cJSON *record = NULL;
  mica_status  status = micah_jsonl_open(path, &lines);
  while (status >= 0 && (status = micah_jsonl_next(&lines, &record)) >= 0 && record) {
    if ((status = metrics_grow(m)) < 0) break;
    for (int i = 0; i < N_COLUMNS; i++) {
      const cJSON *item = cJSON_GetObjectItemCaseSensitive(record, columns[i]);
      m->column[i][m->count] = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    }
    m->count++;
  }
  micah_jsonl_close(&lines);
  return status;
}

/* running mean over about 1 % of the run, so that the curve can be read through the noise of single batches */
static double *smooth(const double *x, int64_t n) {
  double *out = malloc((size_t)(n ? n : 1) * sizeof *out);
  if (!out) return NULL;
  int64_t half = n / 200, lo = 0, hi = 0, known = 0;
  double  sum = 0;
  for (int64_t i = 0; i < n; i++) {
    for (; hi < n && hi <= i + half; hi++)
      if (isfinite(x[hi])) sum += x[hi], known++;
    for (; lo < i - half; lo++)
      if (isfinite(x[lo])) sum -= x[lo], known--;
    out[i] = known ? sum / (double)known : NAN;
  }
  return out;
}

static int any_finite(const double *x, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (isfinite(x[i])) return 1;
  return 0;
}

static int all_positive(const double *x, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (isfinite(x[i]) && x[i] <= 0) return 0;
  return 1;
}

static mica_status learning_curve(micah_html *page, const metrics *m, const char *unit) {
  double *loss = smooth(m->column[LOSS], m->count), *exact = smooth(m->column[EXACT], m->count);
  mica_status status = MICA_OK;
  if (!loss || !exact) status = mica_error(MICA_ERR_MEMORY, "no memory for the learning curve");
  /* the exact predictor is asked now and then: a line through the steps where it was */
  double *at = malloc((size_t)(m->count ? m->count : 1) * sizeof *at);
  int64_t known = 0;
  if (!at) status = mica_error(MICA_ERR_MEMORY, "no memory for the learning curve");
  for (int64_t i = 0; status >= 0 && i < m->count; i++)
    if (isfinite(m->column[EXACT][i])) at[known] = m->column[STEP][i], exact[known++] = exact[i];
  char label[64];
  snprintf(label, sizeof label, "loss (%s)", unit);
  micah_series series[] = {
    { .name = "model", .x = m->column[STEP], .y = loss, .count = m->count },
    { .name = "exact predictor", .x = at, .y = exact, .count = known, .style = MICAH_DASHED },
  };
  micah_chart chart = { .title = "Learning curve", .x_label = "step", .y_label = label, .series = series,
                        .n_series = known ? 2 : 1 };
  chart.log_y = status >= 0 && all_positive(loss, m->count);
  if (status >= 0)
    status = micah_html_chart(page, &chart, "training loss of each step's tasks before the update, mean over 1 % of the run");
  free(loss);
  free(exact);
  free(at);
  return status;
}

static mica_status by_position(micah_html *page, const mica_evaluation *e) {
  enum { MAX_SERIES = 8 };
  micah_series series[MAX_SERIES];
  int          n = 0, bits = isfinite(e->bits);
  double      *scaled = malloc((size_t)(MAX_SERIES + 1) * (size_t)(e->positions ? e->positions : 1) * sizeof *scaled);
  if (!scaled) return mica_error(MICA_ERR_MEMORY, "no memory for the loss by position");
  double *x = scaled + MAX_SERIES * e->positions;
  for (int64_t k = 0; k < e->positions; k++) x[k] = (double)k + 1;
  /* a predictor may be wild at some position (least squares with as many points as dimensions): it must not hide the rest */
  double most = 0;
  for (int64_t k = 0; k < e->positions; k++) {
    if (isfinite(e->loss_by_position[k])) most = fmax(most, e->loss_by_position[k]);
    if (e->exact_loss_by_position && isfinite(e->exact_loss_by_position[k])) most = fmax(most, e->exact_loss_by_position[k]);
  }
  int cut = 0;
  for (int i = -1; i < e->n_predictors && n < MAX_SERIES; i++) {
    const double *y = i < 0 ? e->loss_by_position : e->predictors[i].by_position;
    double       *to = scaled + n * e->positions;
    for (int64_t k = 0; k < e->positions; k++) {
      int wild = y[k] > 1.5 * most;
      cut |= wild;
      to[k] = wild ? NAN : bits ? y[k] / log(2) : y[k];
    }
    series[n++] = (micah_series) { .name = i < 0 ? "model" : e->predictors[i].name, .x = x, .y = to, .count = e->positions,
                                   .style = i < 0 ? MICAH_LINE : MICAH_DASHED };
  }
  char label[64], caption[192];
  snprintf(label, sizeof label, "loss (%s)", bits ? "bits" : e->unit);
  snprintf(caption, sizeof caption, "mean over %lld test tasks; position k sees k - 1 examples of its own task%s",
           (long long)e->tasks, cut ? "; a line is broken where it is far above the others" : "");
  micah_chart chart = { .title = "Loss by position in context", .x_label = "position", .y_label = label, .series = series,
                        .n_series = n, .log_x = e->positions > 200 };
  mica_status status = micah_html_chart(page, &chart, caption);
  free(scaled);
  return status;
}

static mica_status one_line(micah_html *page, const metrics *m, int column, const char *title, const char *label, int zero,
                            const char *caption) {
  if (!any_finite(m->column[column], m->count)) return MICA_OK;
  micah_series series = { .name = title, .x = m->column[STEP], .y = m->column[column], .count = m->count };
  micah_chart  chart = { .title = title, .x_label = "step", .y_label = label, .series = &series, .n_series = 1, .zero_y = zero,
                         .height = 260 };
  return micah_html_chart(page, &chart, caption);
}

static void losses_table(micah_html *page, const mica_evaluation *e) {
  const char *header[] = { "predictor", "loss", "excess over the best exact predictor" };
  micah_html_table(page, header, 3);
  for (int i = -1; i < e->n_predictors; i++) {
    double loss = i < 0 ? e->loss : e->predictors[i].loss;
    char   text[32], excess[32] = "";
    snprintf(text, sizeof text, "%.5f", loss);
    if (isfinite(e->exact_loss)) snprintf(excess, sizeof excess, "%+.5f", loss - e->exact_loss);
    const char *cells[] = { i < 0 ? "model" : e->predictors[i].name, text, excess };
    micah_html_row(page, cells);
  }
  micah_html_table_end(page);
}

static mica_status build(micah_html *page, const char *run, const metrics *m, const mica_evaluation *e,
                         const char *config) {
  char title[300], sub[300], values[4][64];
  snprintf(title, sizeof title, "mica run %s", micah_path_name(run));
  snprintf(sub, sizeof sub, "%lld steps so far; test loss on %lld tasks that training never saw", (long long)m->count,
           (long long)e->tasks);
  micah_html_begin(page, title, sub);
  snprintf(values[0], 64, "%.4f %s", isfinite(e->bits) ? e->bits : e->loss, isfinite(e->bits) ? "bits" : "");
  snprintf(values[1], 64, "%.4f %s", isfinite(e->bits) ? e->exact_loss / log(2) : e->exact_loss,
           isfinite(e->bits) ? "bits" : "");
  int64_t last = e->positions - 1;
  double  ratio = last >= 0 && e->exact_loss_by_position ? e->loss_by_position[last] / e->exact_loss_by_position[last] : NAN;
  snprintf(values[2], 64, isfinite(ratio) ? "%.3f x" : "n/a", ratio);
  snprintf(values[3], 64, "%lld", (long long)m->count);
  char exact[80];
  snprintf(exact, sizeof exact, "best exact predictor (%s)", e->exact ? e->exact : "none");
  const char *names[] = { "test loss", exact, "last position, model over exact", "steps" };
  const char *shown[] = { values[0], e->exact ? values[1] : "n/a", values[2], values[3] };
  micah_html_figures(page, names, shown, 4);
  mica_status status = by_position(page, e);
  if (status >= 0) status = learning_curve(page, m, e->unit);
  micah_html_heading(page, "Losses on test tasks");
  losses_table(page, e);
  if (status >= 0) status = one_line(page, m, RATE, "Throughput", "tasks per second", 1, "tasks per second of training");
  if (status >= 0) status = one_line(page, m, NORM, "Gradient norm", "norm before clipping", 1, NULL);
  if (status >= 0) status = one_line(page, m, LR, "Learning rate", "learning rate", 1, NULL);
  micah_html_heading(page, "Configuration");
  micah_html_code(page, config);
  return status;
}

static int run(micac_args *args) {
  if (args->n_positional != 1) return micac_usage(args, "expected one run folder, got %d", args->n_positional);
  const char *folder = args->positional[0];
  mica_context_options  context = micac_context_options();
  mica_evaluate_options options = MICA_EVALUATE_OPTIONS_INIT;
  options.source = micac_source(args, folder, &context);
  if (!options.source.run) return micac_usage(args, "'%s' is not a run folder", folder);
  int code = micac_option_int(args, "tasks", 0, &options.tasks);
  if (code) return code;
  char *path = micah_path_join(folder, "metrics.jsonl"), *config_path = micah_path_join(folder, "config.yaml"), *config = NULL;
  char *out = micac_option(args, "out") ? strdup(micac_option(args, "out")) : micah_path_join(folder, "report.html");
  metrics     m = { 0 };
  micah_html  page = { 0 };
  int64_t     size;
  const mica_evaluation *e = NULL;
  mica_status status = path && config_path && out ? MICA_OK : mica_error(MICA_ERR_MEMORY, "no memory for paths");
  if (status >= 0) status = metrics_read(path, &m);
  if (status >= 0) status = micah_file_read(config_path, 1 << 24, &config, &size);
  if (status >= 0) status = mica_evaluate(&options, &e);
  if (status >= 0) status = build(&page, folder, &m, e, config);
  if (status >= 0) status = micah_html_write(&page, out);
  code = status < 0 ? micac_fail(args, status) : MICAC_OK;
  if (status >= 0 && args->json) {
    micah_json json = { 0 };
    const char *text;
    micah_json_object(&json, NULL);
    micah_json_string(&json, "report", out);
    micah_json_int(&json, "steps", m.count);
    micah_json_real(&json, "loss", e->loss);
    micah_json_real(&json, "exact_loss", e->exact_loss);
    micah_json_end(&json);
    if (micah_json_finish(&json, &text) >= 0) printf("%s\n", text);
    micah_json_free(&json);
  } else if (status >= 0) {
    printf("%s\n", out);
  }
  mica_evaluation_destroy(e);
  micah_html_free(&page);
  metrics_free(&m);
  free(config);
  free(path);
  free(config_path);
  free(out);
  return code;
}

const micac_command micac_report = {
  .name = "report",
  .summary = "one self-contained HTML page about a run, with pictures",
  .usage = "RUN [--out FILE] [--tasks N] [--json]",
  .help =
      "  --out FILE  where to write (default RUN/report.html)\n"
      "  --tasks N   test tasks for the pictures\n"
      "\nshows the learning curve, the loss by position beside the exact predictors, throughput and the configuration.\n"
      "\nexample:\n  mica report runs/linreg\n",
  .options = "out: tasks: json",
  .overrides = 1,
  .run = run,
};
