/* feature_map_cuda_internal.cuh: rows of heads, shared by the maps */
#ifndef MICA_KERNELS_FEATURE_MAP_CUDA_INTERNAL_CUH
#define MICA_KERNELS_FEATURE_MAP_CUDA_INTERNAL_CUH

#include "common/cuda_rows.cuh"
#include "feature_map/feature_map_internal.h"

struct feature_job {
  rows_job       rows;                       /* a row of the walk is one head of one row: R = T H, C = D */
  const int32_t *offsets;                    /* of the T rows */
  int32_t        T, H, F, nu, map, face;
  float          eps;
  plane          x, xt, g, gt, out[1];       /* g: cotangent of y; t: tangents; columns are the elements of a head */
  int32_t        head[5];                    /* their distances from head to head */
  const float   *w;                          /* favor: directions, transposed (D,F) */
};

PLANE_DEVICE bool feature_inside(const feature_job &a, const rows_team &team) {
  return team.r / a.H < wire_rows(a.offsets, team.b, a.T);
}
PLANE_DEVICE char *feature_at(const feature_job &a, const plane &p, int which, int64_t k, int32_t r) {
  char *at = plane_task(p, k);
  if (!at) return NULL;
  const int32_t t = r / a.H, h = r - t * a.H;
  return at + ((int64_t)t * p.row + (int64_t)h * a.head[which]) * (p.dtype == MICA_BF16 ? 2 : 4);
}
/* element i of a row; zero where it is absent */
PLANE_DEVICE float feature_get(const plane &p, const char *row, int32_t i) {
  return row ? plane_get(p, row, (int64_t)i * p.col) : 0.0f;
}

#define FEATURE_EACH(a, team) \
  ROWS_EACH(a, team)          \
  if (feature_inside(a, team)) for (rows_walk<1> walk((a).rows, (a).out, team); walk.any(); walk.next())
#define FEATURE_ROWS                                                                                              \
  const char *const x = feature_at(a, a.x, 0, walk.k, team.r), *const xt = feature_at(a, a.xt, 1, walk.k, team.r); \
  const char *const g = feature_at(a, a.g, 2, walk.k, team.r), *const gt = feature_at(a, a.gt, 3, walk.k, team.r); \
  char *const       out = feature_at(a, a.out[0], 4, walk.k, team.r);                                             \
  (void)x, (void)xt, (void)g, (void)gt, (void)out

/* favor, and the directions drawn for it into scratch */
mica_status feature_favor_cuda(const char *name, feature_job job, const mica_exec *exec,
                               const mica_feature_map_args *a);

#endif
