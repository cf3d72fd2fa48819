/* noisy linear regression: w ~ N(0, weight_scale^2 I), x ~ N(0, I), y = w.x + noise N(0, 1) (Garg et al. 2022); with
 * `pool`, w is one of a fixed set of that many draws (Raventos et al. 2023). */
#include "host/task/least_squares.h"
#include "host/task/regression.h"

#include <math.h>
#include <string.h>

static const char name[] = "linear_regression";

typedef struct config {
  int64_t dim, points, layout, pool;
  double  noise, weight_scale;
  int32_t test_from_pool;
  int64_t dim_start, dim_step, dim_every, points_start, points_step, points_every, curriculum_steps;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(dim, MICA_KEY_INT, "8", 1, MICAH_REGRESSION_MAX_DIM, NULL, "dimensions of x"),
  KEY(points, MICA_KEY_INT, "16", 1, 65536, NULL, "pairs (x, y) in a sequence; the last y is predicted too"),
  KEY(noise, MICA_KEY_REAL, "0.5", 0, 1e6, NULL, "standard deviation of the noise on y"),
  KEY(weight_scale, MICA_KEY_REAL, "1", 1e-6, 1e6, NULL, "standard deviation of each weight"),
  KEY(layout, MICA_KEY_CHOICE, "interleaved", 0, 0, MICAH_REGRESSION_LAYOUTS,
      "rows of tokens: x and y in turn; (x, y) together with only the last y predicted; x with the y before"),
  KEY(pool, MICA_KEY_INT, "0", 0, 1 << 24, NULL, "training tasks to choose from (task diversity); 0: unbounded"),
  KEY(test_from_pool, MICA_KEY_BOOL, "no", 0, 0, NULL, "test tasks draw from the pool too, instead of fresh weights"),
  KEY(dim_start, MICA_KEY_INT, "0", 0, MICAH_REGRESSION_MAX_DIM, NULL,
      "dimension curriculum: dimensions at the first step, the others zero; 0: all"),
  KEY(dim_step, MICA_KEY_INT, "1", 1, MICAH_REGRESSION_MAX_DIM, NULL, "dimensions added at a time"),
  KEY(dim_every, MICA_KEY_INT, "2000", 1, 1e9, NULL, "steps from one addition of dimensions to the next"),
  KEY(points_start, MICA_KEY_INT, "0", 0, 65536, NULL, "point curriculum: points at the first step; 0: all"),
  KEY(points_step, MICA_KEY_INT, "2", 1, 65536, NULL, "points added at a time"),
  KEY(points_every, MICA_KEY_INT, "2000", 1, 1e9, NULL, "steps from one addition of points to the next"),
  KEY(curriculum_steps, MICA_KEY_INT, "0", 0, 1e9, NULL,
      "length of the run that the curricula are written for: a shorter run shrinks them in proportion; 0: as written"),
};

/* streams of one task */
enum { DRAW_WEIGHTS, DRAW_X, DRAW_NOISE, DRAW_CHOICE };
/* the pool has streams of its own, so that no fresh task meets it */
enum { DRAW_POOL = 16 };

typedef struct family {
  micah_regression regression;   /* first: shared code takes a pointer to it */
  config           config;
  micak_philox_key key, pool_key;
  int64_t          tasks_per_step, steps;
  int32_t          train, from_pool;
  const double    *pool;         /* (pool, dim) while a predictor over all members runs, else NULL */
} family;

static void draw_weights(micak_philox_key key, uint64_t task, uint32_t purpose, int64_t dim, double scale, double *w) {
  micak_stream s = micak_stream_at(key, task, purpose);
  for (int64_t j = 0; j < dim; j++) w[j] = scale * micak_stream_normal(&s);
}

/* a member of the pool is drawn anew wherever it is needed. both splits know the training pool: the predictor over it
 * is measured on fresh tasks too */
static void draw_member(const family *f, int64_t member, double *w) {
  draw_weights(f->pool_key, (uint64_t)member, DRAW_POOL, f->config.dim, f->config.weight_scale, w);
}

static void close_family(void *self) {
  family *f = self;
  if (!f) return;
  micah_free(f->regression.context, f, sizeof *f);
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  if (c->dim_start > c->dim)
    return mica_error(MICA_ERR_CONFIG, "family %s: dim_start is %lld, expected at most dim (%lld)", name,
                      (long long)c->dim_start, (long long)c->dim);
  if (c->points_start > c->points)
    return mica_error(MICA_ERR_CONFIG, "family %s: points_start is %lld, expected at most points (%lld)", name,
                      (long long)c->points_start, (long long)c->points);
  if (c->test_from_pool && !c->pool)
    return mica_error(MICA_ERR_CONFIG, "family %s: test_from_pool is yes but pool is 0; set pool to a number of "
                      "tasks", name);
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  memset(f, 0, sizeof *f);
  micah_regression_init(&f->regression, env->context, c->dim, c->points, c->layout);
  f->config = *c;
  f->key = micah_task_key(env, name, env->split);
  f->pool_key = micah_task_key(env, name, MICA_SPLIT_TRAIN);
  f->tasks_per_step = env->tasks_per_step, f->steps = env->steps;
  f->train = env->split == MICA_SPLIT_TRAIN;
  f->from_pool = c->pool > 0 && (f->train || c->test_from_pool);
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->regression.fields, *count = 3;
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  const family *f = self;
  rows[0] = micah_regression_rows(&f->regression, f->config.points);
  return MICA_OK;
}

/* value of a curriculum for a task: start, and `step` more every `every` steps of the nominal run */
static int64_t scheduled(const family *f, int64_t task, int64_t start, int64_t step, int64_t every, int64_t full) {
  if (!start || !f->train) return full;
  int64_t now = task / f->tasks_per_step, nominal = f->config.curriculum_steps;
  if (nominal > f->steps) now = (int64_t)floor((double)now * ((double)nominal / (double)f->steps));
  int64_t times = now / every;
  return times >= (full - start + step - 1) / step ? full : start + times * step;
}

static int64_t points_of(const family *f, int64_t task) {
  const config *c = &f->config;
  return scheduled(f, task, c->points_start, c->points_step, c->points_every, c->points);
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  const family *f = self;
  for (int64_t i = 0; i < count; i++)
    rows[i] = (int32_t)micah_regression_rows(&f->regression, points_of(f, first + i));
  return MICA_OK;
}

static void fill_task(const family *f, int64_t task, const micah_pairs *p) {
  const config *c = &f->config;
  const micah_regression *r = &f->regression;
  double w[MICAH_REGRESSION_MAX_DIM];
  if (f->from_pool) {
    draw_member(f, (int64_t)micak_philox_below(f->key, (uint64_t)task, DRAW_CHOICE, 0, (uint64_t)c->pool), w);
  } else {
    draw_weights(f->key, (uint64_t)task, DRAW_WEIGHTS, c->dim, c->weight_scale, w);
  }
  int64_t dim = scheduled(f, task, c->dim_start, c->dim_step, c->dim_every, c->dim);
  micak_stream draw_x = micak_stream_at(f->key, (uint64_t)task, DRAW_X);
  micak_stream draw_noise = micak_stream_at(f->key, (uint64_t)task, DRAW_NOISE);
  micah_pairs_clear(r, p);
  for (int64_t i = 0; i < p->points; i++) {
    float *x = micah_pairs_x(r, p, i);
    double y = 0;
    /* y is computed from the rounded x, so that the predictors' model of the data is the exact one */
    for (int64_t j = 0; j < dim; j++) x[j] = (float)micak_stream_normal(&draw_x), y += w[j] * (double)x[j];
    y += c->noise * micak_stream_normal(&draw_noise);
    micah_pairs_put_y(r, p, i, (float)y);
  }
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  for (int64_t b = 0; b < batch->count; b++) {
    micah_pairs p;
    mica_status status = micah_regression_task(&f->regression, batch, b, &p);
    if (status < 0) return status;
    fill_task(f, batch->first + b, &p);
  }
  return MICA_OK;
}

/* ---- exact predictors ---- */

static mica_status predict_zero(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                double *work, double *prediction) {
  (void)self, (void)from, (void)x, (void)y, (void)work;
  memset(prediction, 0, (size_t)n * sizeof *prediction);
  return MICA_OK;
}

static void predict_least_squares(int64_t dim, double lambda, int64_t n, int64_t from, const double *x, const double *y,
                                  double *work, double *prediction) {
  micah_least_squares ls;
  micah_least_squares_init(&ls, dim, lambda, work);
  for (int64_t i = 0; i < n; i++) {
    if (i >= from) prediction[i] = micah_least_squares_predict(&ls, x + i * dim);
    micah_least_squares_add(&ls, x + i * dim, y[i]);
  }
}

static mica_status predict_ols(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                               double *work, double *prediction) {
  predict_least_squares(((const family *)self)->config.dim, 0, n, from, x, y, work, prediction);
  return MICA_OK;
}

/* the posterior mean under the Gaussian prior is ridge with lambda = noise^2 / weight_scale^2 (Bishop 2006, 3.54) */
static mica_status predict_ridge(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                 double *work, double *prediction) {
  const config *c = &((const family *)self)->config;
  double ratio = c->noise / c->weight_scale;
  predict_least_squares(c->dim, ratio * ratio, n, from, x, y, work, prediction);
  return MICA_OK;
}

/* posterior mean over the pool: sum_k p_k w_k.x with p_k ~ exp(-sum (y - w_k.x)^2 / (2 noise^2)) (Raventos et al. 2023,
 * dMMSE). as noise goes to 0 the mass is shared by the members with the least error. without a pool the prior is
 * Gaussian. */
static mica_status predict_dmmse(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                 double *work, double *prediction) {
  const family *f = self;
  int64_t dim = f->config.dim, pool = f->config.pool;
  if (!f->pool) return predict_ridge(self, n, from, x, y, work, prediction);
  double *error = work, *value = work + pool, noise = f->config.noise;
  double precision = noise > 0 ? 0.5 / (noise * noise) : 0;
  memset(error, 0, (size_t)pool * sizeof *error);
  for (int64_t i = 0; i < n; i++) {
    double least = INFINITY, mass = 0, sum = 0;
    for (int64_t k = 0; k < pool; k++) {
      const double *w = f->pool + k * dim;
      double v = 0;
      for (int64_t j = 0; j < dim; j++) v += w[j] * x[i * dim + j];
      value[k] = v;
      if (error[k] < least) least = error[k];
    }
    for (int64_t k = 0; k < pool; k++) {
      double p = precision > 0 ? exp(-precision * (error[k] - least)) : error[k] == least;
      mass += p, sum += p * value[k], error[k] += (y[i] - value[k]) * (y[i] - value[k]);
    }
    if (i >= from) prediction[i] = sum / mass;
  }
  return MICA_OK;
}

/* best for this split: over the pool where tasks come from it, ridge where weights are fresh */
static mica_status predict_bayes(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                 double *work, double *prediction) {
  return (((const family *)self)->from_pool ? predict_dmmse : predict_ridge)(self, n, from, x, y, work, prediction);
}

static const micah_regression_predict predictors[] = { predict_zero, predict_ols, predict_ridge, predict_dmmse,
                                                       predict_bayes };

static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  if (which < 0 || which >= MICA_COUNT(predictors))
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  int64_t work = micah_least_squares_doubles(f->config.dim), dim = f->config.dim, pool = f->config.pool;
  int over_pool = pool > 0 && (predictors[which] == predict_dmmse ||
                               (predictors[which] == predict_bayes && f->from_pool));
  if (!over_pool) return micah_regression_exact(&f->regression, batch, f, predictors[which], work, loss);
  size_t bytes = (size_t)pool * (size_t)dim * sizeof(double);
  double *members = micah_alloc(f->regression.context, bytes, "linear_regression's pool");
  if (!members) return MICA_ERR_MEMORY;
  for (int64_t i = 0; i < pool; i++) draw_member(f, i, members + i * dim);
  family all = *f;
  all.pool = members;
  if (work < 2 * pool) work = 2 * pool;
  mica_status status = micah_regression_exact(&f->regression, batch, &all, predictors[which], work, loss);
  micah_free(f->regression.context, members, bytes);
  return status;
}

static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  return micah_regression_encode(&((family *)self)->regression, name, values, rows, columns, out_sizes, batch);
}

const mica_family micah_family_linear_regression = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "noisy linear regression: y = w.x + noise, new weights w in every task",
  .axes = "token",
  .predictors = "zero ols ridge dmmse bayes",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .open = open_family,
  .close = close_family,
  .fields = get_fields,
  .longest = longest,
  .sizes = sizes,
  .fill = fill,
  .exact = exact,
  .encode = encode,
};
