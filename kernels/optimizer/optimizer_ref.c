/* plain loops in double */
#include <math.h>

#include "kernels/optimizer/optimizer.h"

void micak_adamw_step_ref(const micak_adamw *s, int64_t n, const double *gradient, double *m, double *v, double *p) {
  double c1 = 1 - pow(s->beta1, (double)s->step), c2 = 1 - pow(s->beta2, (double)s->step);
  for (int64_t i = 0; i < n; i++) {
    double g = s->scale * gradient[i];
    m[i] = s->beta1 * m[i] + (1 - s->beta1) * g;
    v[i] = s->beta2 * v[i] + (1 - s->beta2) * g * g;
    p[i] = (1 - s->lr * s->decay) * p[i] - s->lr * (m[i] / c1) / (sqrt(v[i] / c2) + s->eps);
  }
}

double micak_norm2_ref(const float *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sum;
}
