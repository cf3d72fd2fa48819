/* sinusoids to adapt to (Finn et al. 2017): `support` pairs to learn from and `query` pairs to be judged by, of one
 * y = A sin(x - phase) + noise, A ~ U[0.1, 5], phase ~ U[0, pi], x ~ U[-5, 5]. */
#include "host/task/families.h"
#include "kernels/common/fixed_math.h"

static const char name[] = "few_shot_sinusoid";
static const double pi = 3.14159265358979323846;

typedef struct config {
  int64_t support, query;
  double  noise, amplitude_low, amplitude_high, x_low, x_high;
} config;

#define KEY(field, type, value, lo, hi, doc) { #field, type, offsetof(config, field), value, lo, hi, NULL, doc }
static const mica_key keys[] = {
  KEY(support, MICA_KEY_INT, "10", 1, 65536, "pairs (x, y) to adapt to"),
  KEY(query, MICA_KEY_INT, "10", 1, 65536, "pairs (x, y) to be judged by"),
  KEY(noise, MICA_KEY_REAL, "0", 0, 1e6, "standard deviation of the noise on y"),
  KEY(amplitude_low, MICA_KEY_REAL, "0.1", 0, 1e6, "least amplitude"),
  KEY(amplitude_high, MICA_KEY_REAL, "5", 0, 1e6, "largest amplitude"),
  KEY(x_low, MICA_KEY_REAL, "-5", -1e4, 1e4, "least x, radians"),
  KEY(x_high, MICA_KEY_REAL, "5", -1e4, 1e4, "largest x, radians"),
};

static const mica_field fields[] = {
  { "support_x", MICA_F32, MICA_FIELD_SUPPORT, "support", 1, { 1 }, 0 },
  { "support_y", MICA_F32, MICA_FIELD_SUPPORT, "support", 1, { 1 }, 0 },
  { "query_x", MICA_F32, MICA_FIELD_INPUT, "query", 1, { 1 }, 0 },
  { "query_y", MICA_F32, MICA_FIELD_TARGET, "query", 1, { 1 }, 0 },
};

/* streams of a task: what it is; x and noise of the support (then of the query) */
enum { DRAW_TASK, DRAW_X, DRAW_NOISE = DRAW_X + 2 };

typedef struct family {
  const mica_context *context;
  config              config;
  micak_philox_key    key;
} family;

static void close_family(void *self) {
  if (self) micah_free(((family *)self)->context, self, sizeof(family));
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  if (!(c->amplitude_low < c->amplitude_high))
    return mica_error(MICA_ERR_CONFIG, "family %s: amplitude_low is %g, expected less than amplitude_high (%g)", name,
                      c->amplitude_low, c->amplitude_high);
  if (!(c->x_low < c->x_high))
    return mica_error(MICA_ERR_CONFIG, "family %s: x_low is %g, expected less than x_high (%g)", name, c->x_low,
                      c->x_high);
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  *f = (family){ env->context, *c, micah_task_key(env, name, env->split) };
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **out, int32_t *count) {
  (void)self;
  *out = fields, *count = MICA_COUNT(fields);
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  rows[0] = ((const family *)self)->config.support, rows[1] = ((const family *)self)->config.query;
  return MICA_OK;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  const config *c = &((const family *)self)->config;
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)c->support, rows[count + i] = (int32_t)c->query;
  return MICA_OK;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  const config *c = &f->config;
  for (int64_t b = 0; b < batch->count; b++) {
    uint64_t task = (uint64_t)(batch->first + b);
    micak_stream draw = micak_stream_at(f->key, task, DRAW_TASK);
    double amplitude = c->amplitude_low + (c->amplitude_high - c->amplitude_low) * micak_stream_uniform(&draw);
    double phase = pi * micak_stream_uniform(&draw);
    for (int part = 0; part < 2; part++) {
      micak_stream draw_x = micak_stream_at(f->key, task, (uint32_t)(DRAW_X + part));
      micak_stream draw_noise = micak_stream_at(f->key, task, (uint32_t)(DRAW_NOISE + part));
      float *x = batch->data[2 * part], *y = batch->data[2 * part + 1];
      for (int32_t i = batch->offsets[part][b]; i < batch->offsets[part][b + 1]; i++) {
        x[i] = (float)(c->x_low + (c->x_high - c->x_low) * micak_stream_uniform(&draw_x));
        double sine, cosine;
        micak_fixed_sincos((double)x[i] - phase, &sine, &cosine);
        double value = amplitude * sine;
        if (c->noise > 0) value += c->noise * micak_stream_normal(&draw_noise);
        y[i] = (float)value;
      }
    }
  }
  return MICA_OK;
}

const mica_family micah_family_few_shot_sinusoid = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "sinusoids of unknown amplitude and phase, a support to adapt to and a query",
  .axes = "support query",
  .predictors = "",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .open = open_family,
  .close = close_family,
  .fields = get_fields,
  .longest = longest,
  .sizes = sizes,
  .fill = fill,
};
