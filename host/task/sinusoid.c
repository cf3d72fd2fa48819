/* sinusoid regression (Finn et al. 2017): y = A sin(x - phase) + noise, A ~ U[0.1, 5], phase ~ U[0, pi], x ~ U[-5, 5].
 *
 * y = u sin x + v cos x with (u, v) = A (cos phase, -sin phase): linear in (u, v), so the posterior mean of y at x is
 * E[u] sin x + E[v] cos x, and the data enter through a 2 x 2 triangular factor. README.md has the integrals. */
#include "host/task/least_squares.h"
#include "host/task/regression.h"

#include <math.h>
#include <string.h>

static const char name[] = "sinusoid";
static const double pi = 3.14159265358979323846;

typedef struct config {
  int64_t points, layout;
  double  noise, amplitude_low, amplitude_high, x_low, x_high;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(points, MICA_KEY_INT, "11", 1, 65536, NULL, "pairs (x, y) in a sequence; the last y is predicted too"),
  KEY(noise, MICA_KEY_REAL, "0", 0, 1e6, NULL, "standard deviation of the noise on y"),
  KEY(layout, MICA_KEY_CHOICE, "interleaved", 0, 0, MICAH_REGRESSION_LAYOUTS,
      "rows of tokens: x and y in turn; (x, y) together with only the last y predicted; x with the y before"),
  KEY(amplitude_low, MICA_KEY_REAL, "0.1", 0, 1e6, NULL, "least amplitude"),
  KEY(amplitude_high, MICA_KEY_REAL, "5", 0, 1e6, NULL, "largest amplitude"),
  KEY(x_low, MICA_KEY_REAL, "-5", -1e4, 1e4, NULL, "least x, radians"),
  KEY(x_high, MICA_KEY_REAL, "5", -1e4, 1e4, NULL, "largest x, radians"),
};

enum { DRAW_TASK, DRAW_X, DRAW_NOISE };

typedef struct family {
  micah_regression regression;
  config           config;
  micak_philox_key key;
} family;

static void close_family(void *self) {
  if (self) micah_free(((family *)self)->regression.context, self, sizeof(family));
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
  if (c->noise > 0 && c->noise < 1e-4 * c->amplitude_high)
    return mica_error(MICA_ERR_CONFIG, "family %s: noise is %g, expected 0 or at least 1e-4 x amplitude_high (%g), "
                      "where the exact predictor's integral is still accurate", name, c->noise,
                      1e-4 * c->amplitude_high);
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  micah_regression_init(&f->regression, env->context, 1, c->points, c->layout);
  f->config = *c;
  f->key = micah_task_key(env, name, env->split);
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

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  const family *f = self;
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)micah_regression_rows(&f->regression, f->config.points);
  return MICA_OK;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  const config *c = &f->config;
  for (int64_t b = 0; b < batch->count; b++) {
    micah_pairs p;
    mica_status status = micah_regression_task(&f->regression, batch, b, &p);
    if (status < 0) return status;
    uint64_t task = (uint64_t)(batch->first + b);
    micak_stream draw_task = micak_stream_at(f->key, task, DRAW_TASK);
    double amplitude = c->amplitude_low + (c->amplitude_high - c->amplitude_low) * micak_stream_uniform(&draw_task);
    double phase = pi * micak_stream_uniform(&draw_task);
    micak_stream draw_x = micak_stream_at(f->key, task, DRAW_X);
    micak_stream draw_noise = micak_stream_at(f->key, task, DRAW_NOISE);
    micah_pairs_clear(&f->regression, &p);
    for (int64_t i = 0; i < p.points; i++) {
      float *x = micah_pairs_x(&f->regression, &p, i);
      *x = (float)(c->x_low + (c->x_high - c->x_low) * micak_stream_uniform(&draw_x));
      double sine, cosine;
      micak_fixed_sincos((double)*x - phase, &sine, &cosine);
      double y = amplitude * sine;
      if (c->noise > 0) y += c->noise * micak_stream_normal(&draw_noise);
      micah_pairs_put_y(&f->regression, &p, i, (float)y);
    }
  }
  return MICA_OK;
}

/* ---- exact predictor ---- */

/* integrals over a set of (u, v): mass, and mass times u and v */
typedef struct moments { double mass, u, v; } moments;

/* Gauss and Legendre, 16 points: positive nodes and weights (Abramowitz and Stegun, table 25.4) */
static const double gauss_x[8] = {
  0.0950125098376374402, 0.2816035507792589132, 0.4580167776572273863, 0.6178762444026437484,
  0.7554044083550030339, 0.8656312023878317439, 0.9445750230732325761, 0.9894009349916499326
};
static const double gauss_w[8] = {
  0.1894506104550684963, 0.1826034150449235889, 0.1691565193950025382, 0.1495959888165767321,
  0.1246289712555338721, 0.0951585116824927848, 0.0622535239386478929, 0.0271524594117540949
};

typedef struct integrand {
  const micah_least_squares *ls; /* rows (sin x, cos x) with targets y */
  double precision, lo, hi;      /* 1 / noise^2, amplitude range */
  double scale;                  /* log of the largest mass, taken out */
} integrand;

/* the same where the Gaussian is nearly flat over [lo, hi], or only its far tail is inside: integrated over the part
 * within e^-30 of the largest value, in two panels that meet there, to a relative 1e-11. */
static double amplitude_panels(double middle, double q, double lo, double hi, double *mean) {
  double peak = middle < lo ? lo : middle > hi ? hi : middle, mass = 0, first = 0;
  for (int side = -1; side <= 1; side += 2) {
    /* exponent(peak) - exponent(peak + side t) = slope t + q t^2 / 2, with slope >= 0 where there is room */
    double room = side < 0 ? peak - lo : hi - peak, slope = side * q * (peak - middle);
    if (slope < 0) slope = 0;
    double reach = q > 0 ? 60 / (slope + sqrt(slope * slope + 60 * q)) : room;
    if (reach > room) reach = room;
    double half = 0.5 * reach;
    for (int i = 0; i < 8; i++)
      for (int sign = -1; sign <= 1; sign += 2) {
        double t = half * (1 + sign * gauss_x[i]), g = half * gauss_w[i] * exp(-t * (slope + 0.5 * q * t));
        mass += g, first += g * side * t;
      }
  }
  *mean = peak + first / mass;
  return log(mass) - 0.5 * q * (peak - middle) * (peak - middle);
}

/* log of the mass of exp(-q (A - middle)^2 / 2) over A in [lo, hi], and the mean of A: the cut Gaussian in closed form
 * wherever the difference of the two tails keeps its digits */
static double amplitude_mass(double middle, double q, double lo, double hi, double *mean) {
  double width = sqrt(q), a = width * (lo - middle), b = width * (hi - middle);
  /* on the side where both tails are small */
  double flip = a + b < 0 ? -1 : 1, near = flip > 0 ? a : -b, far = flip > 0 ? b : -a;
  if ((b - a) * (near > 1 ? near : 1) < 0.1 || near > 30) return amplitude_panels(middle, q, lo, hi, mean);
  double tail = 0.5 * (erfc(near * 0.70710678118654752440) - erfc(far * 0.70710678118654752440));
  double edge = 0.39894228040143267794 * (exp(-0.5 * near * near) - exp(-0.5 * far * far));
  *mean = middle + flip * edge / (tail * width);
  return log(2.50662827463100050242 * tail / width);
}

/* log of the posterior mass at one phase, up to a constant, and its moments. along the direction d of the phase the
 * rows give (r A - rhs)^2 with r = R d: its least value is (r x rhs)^2 / r^2, at A = r.rhs / r^2. nothing large
 * cancels. */
static double phase_mass(const integrand *g, double phase, moments *out) {
  const micah_least_squares *ls = g->ls;
  double d[2] = { cos(phase), -sin(phase) }, z[2] = { 0, 0 }, mean;
  for (int64_t k = 0; k < ls->rank; k++) z[k] = ls->basis[2 * k] * d[0] + ls->basis[2 * k + 1] * d[1];
  double r[2] = { ls->r[0] * z[0] + ls->r[1] * z[1], ls->r[3] * z[1] };
  double square = r[0] * r[0] + r[1] * r[1], cross = r[0] * ls->rhs[1] - r[1] * ls->rhs[0];
  /* a direction that the rows do not see: all of the residual is left */
  int seen = square > 1e-290;
  double least = seen ? cross / sqrt(square) : sqrt(ls->rhs[0] * ls->rhs[0] + ls->rhs[1] * ls->rhs[1]);
  double middle = seen ? (r[0] * ls->rhs[0] + r[1] * ls->rhs[1]) / square : 0;
  double value = amplitude_mass(middle, g->precision * square, g->lo, g->hi, &mean);
  value -= 0.5 * g->precision * least * least;
  if (out) {
    out->mass = exp(value - g->scale);
    out->u = out->mass * mean * d[0], out->v = out->mass * mean * d[1];
  }
  return value;
}

static moments panel(const integrand *g, double a, double b) {
  moments sum = { 0, 0, 0 }, m;
  double half = 0.5 * (b - a), mid = 0.5 * (a + b);
  for (int i = 0; i < 8; i++)
    for (int sign = -1; sign <= 1; sign += 2) {
      phase_mass(g, mid + sign * half * gauss_x[i], &m);
      sum.mass += half * gauss_w[i] * m.mass, sum.u += half * gauss_w[i] * m.u, sum.v += half * gauss_w[i] * m.v;
    }
  return sum;
}

/* halve a panel until its halves agree with it */
static void refine(const integrand *g, double a, double b, moments whole, int depth, moments *total) {
  double mid = 0.5 * (a + b);
  if (whole.mass < 1e-14 * total->mass) return; /* far from the peak; panels near it came first */
  moments left = panel(g, a, mid), right = panel(g, mid, b);
  double error = fabs(left.mass + right.mass - whole.mass) + fabs(left.u + right.u - whole.u) +
                 fabs(left.v + right.v - whole.v);
  if (depth == 0 || error <= 1e-9 * (total->mass + left.mass + right.mass)) {
    total->mass += left.mass + right.mass, total->u += left.u + right.u, total->v += left.v + right.v;
    return;
  }
  refine(g, a, mid, left, depth - 1, total);
  refine(g, mid, b, right, depth - 1, total);
}

/* largest log mass between two scan nodes, by golden section */
static double climb(const integrand *g, double a, double b, double *where) {
  const double ratio = 0.61803398874989484820;
  double x = b - ratio * (b - a), y = a + ratio * (b - a), fx = phase_mass(g, x, NULL), fy = phase_mass(g, y, NULL);
  for (int i = 0; i < 28; i++) {
    if (fx > fy) b = y, y = x, fy = fx, x = b - ratio * (b - a), fx = phase_mass(g, x, NULL);
    else a = x, x = y, fx = fy, y = a + ratio * (b - a), fy = phase_mass(g, y, NULL);
  }
  *where = fx > fy ? x : y;
  return fx > fy ? fx : fy;
}

/* posterior mean of (u, v) with noise. the mass over the phase is smooth but may be far narrower than a fixed grid: its
 * maxima are found by a scan and a search, panels shrink geometrically towards each, and each is refined to 1e-9. */
static void posterior_noisy(const micah_least_squares *ls, const config *c, double *u, double *v) {
  enum { SCAN = 96, GRADED = 6 };
  integrand g = { ls, 1 / (c->noise * c->noise), c->amplitude_low, c->amplitude_high, 0 };
  double value[SCAN + 1], peak[SCAN], height[SCAN];
  int peaks = 0;
  for (int i = 0; i <= SCAN; i++) value[i] = phase_mass(&g, pi * i / SCAN, NULL);
  g.scale = -INFINITY;
  for (int i = 0; i <= SCAN; i++) {
    int rises = i == 0 || value[i] > value[i - 1], falls = i == SCAN || value[i] >= value[i + 1];
    if (!rises || !falls || peaks == SCAN) continue;
    height[peaks] = climb(&g, pi * (i ? i - 1 : 0) / SCAN, pi * (i < SCAN ? i + 1 : SCAN) / SCAN, &peak[peaks]);
    if (height[peaks] < value[i]) height[peaks] = value[i], peak[peaks] = pi * i / SCAN;
    if (height[peaks] > g.scale) g.scale = height[peaks];
    peaks++;
  }
  int kept = 0;
  for (int k = 0; k < peaks; k++)
    if (height[k] > g.scale - 60) peak[kept++] = peak[k];
  /* panels: from the middle to the last peak, to this one, to the middle to the next; graded towards the peak */
  moments total = { 0, 0, 0 };
  for (int k = 0; k < kept; k++) {
    double from = k ? 0.5 * (peak[k - 1] + peak[k]) : 0, to = k < kept - 1 ? 0.5 * (peak[k] + peak[k + 1]) : pi;
    for (int side = 0; side < 2; side++) {
      double length = side ? to - peak[k] : from - peak[k], near = 0;
      for (int j = GRADED; j >= 0; j--) {
        double far = ldexp(length, -2 * j), a = peak[k] + (side ? near : far), b = peak[k] + (side ? far : near);
        if (b > a) refine(&g, a, b, panel(&g, a, b), 20, &total);
        near = far;
      }
    }
  }
  *u = total.u / total.mass, *v = total.v / total.mass;
}

/* integrals of 1/A and (t/A) over t in [a, b], A = sqrt(y^2 + t^2) */
static void segment(double y, double a, double b, double *mass, double *first) {
  if (!(b > a)) return;
  *first += sqrt(y * y + b * b) - sqrt(y * y + a * a);
  *mass += y != 0 ? asinh(b / fabs(y)) - asinh(a / fabs(y)) : log(b / a) * (a > 0 ? 1 : -1);
}

/* posterior mean of (u, v) after one pair without noise: the line u sin x + v cos x = y in the half ring of the prior,
 * whose density in the plane is 1 / A. points of the line are y (sin x, cos x) + t (cos x, -sin x). */
static void posterior_line(double sine, double cosine, double y, const config *c, double *u, double *v) {
  double lo2 = c->amplitude_low * c->amplitude_low - y * y, hi2 = c->amplitude_high * c->amplitude_high - y * y;
  double inner = lo2 > 0 ? sqrt(lo2) : 0, outer = hi2 > 0 ? sqrt(hi2) : 0, mass = 0, first = 0;
  /* v <= 0: y cos x <= t sin x */
  double from = -outer, to = outer;
  if (sine > 0 && y * cosine / sine > from) from = y * cosine / sine;
  if (sine < 0 && y * cosine / sine < to) to = y * cosine / sine;
  segment(y, from, to < -inner ? to : -inner, &mass, &first);
  segment(y, from > inner ? from : inner, to, &mass, &first);
  double t = mass > 0 ? first / mass : 0;
  *u = y * sine + t * cosine, *v = y * cosine - t * sine;
}

static mica_status predict_zero(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                double *work, double *prediction) {
  (void)self, (void)from, (void)x, (void)y, (void)work;
  memset(prediction, 0, (size_t)n * sizeof *prediction);
  return MICA_OK;
}

/* without noise two pairs fix (u, v); more are solved by least squares, as y is only known to fp32 */
static mica_status predict_bayes(const void *self, int64_t n, int64_t from, const double *x, const double *y,
                                 double *work, double *prediction) {
  const config *c = &((const family *)self)->config;
  micah_least_squares ls;
  micah_least_squares_init(&ls, 2, 0, work);
  double middle = 0.5 * (c->amplitude_low + c->amplitude_high);
  for (int64_t i = 0; i < n; i++) {
    double row[2] = { sin(x[i]), cos(x[i]) }, u = 0, v = -middle * 2 / pi; /* prior means: E cos = 0, E sin = 2/pi */
    if (i >= from) {
      if (c->noise > 0 && i > 0) posterior_noisy(&ls, c, &u, &v);
      if (c->noise <= 0 && ls.rank == 1) posterior_line(sin(x[0]), cos(x[0]), y[0], c, &u, &v);
      prediction[i] = c->noise <= 0 && ls.rank == 2 ? micah_least_squares_predict(&ls, row) : u * row[0] + v * row[1];
    }
    micah_least_squares_add(&ls, row, y[i]);
  }
  return MICA_OK;
}

static const micah_regression_predict predictors[] = { predict_zero, predict_bayes };

static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  if (which < 0 || which >= MICA_COUNT(predictors))
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  return micah_regression_exact(&f->regression, batch, f, predictors[which], micah_least_squares_doubles(2), loss);
}

static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  return micah_regression_encode(&((family *)self)->regression, name, values, rows, columns, out_sizes, batch);
}

const mica_family micah_family_sinusoid = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "sinusoid regression: y = A sin(x - phase) + noise, new amplitude and phase in every task",
  .axes = "token",
  .predictors = "zero bayes",
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
