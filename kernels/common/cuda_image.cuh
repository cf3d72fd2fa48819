/* cuda_image.cuh: wires (B,T,H,W,C), or (B,T,P,C) without lines, as kernels take them: a plane of images, with lines and
 * pixels between. no op logic. */
#ifndef MICA_KERNELS_COMMON_CUDA_IMAGE_CUH
#define MICA_KERNELS_COMMON_CUDA_IMAGE_CUH

#include "common/cuda_plane.cuh"

struct image_plane {
  plane   p;                                 /* row: from image to image, col: from channel to channel */
  int32_t line, pixel;                       /* elements from line to line, from pixel to pixel */
};

/* ---- host ---- */

static inline image_plane image_strided(const mica_wire &w, const int32_t *offsets, int64_t line, int64_t pixel,
                                        int64_t channel) {
  image_plane m = { plane_of(w, offsets, w.stride[0], channel), (int32_t)line, (int32_t)pixel };
  if (m.p.data && (m.line != line || m.pixel != pixel)) m.p.bad = PLANE_STRIDE;
  return m;
}
static inline image_plane image_of(const mica_wire &w, const int32_t *offsets) {
  return image_strided(w, offsets, w.stride[1], w.stride[2], w.stride[3]);
}
static inline image_plane image_of_pixels(const mica_wire &w, const int32_t *offsets) {
  return image_strided(w, offsets, 0, w.stride[1], w.stride[2]);
}
static inline bool image_by_four(const image_plane &m) {
  return plane_by_four(m.p) && (!m.p.data || (m.line % 4 == 0 && m.pixel % 4 == 0));
}
/* may 16 bytes, `each` channels, be taken at once? */
static inline bool image_by(const image_plane &m, int32_t each) {
  return !m.p.data || (m.p.col == 1 && (m.p.row | m.line | m.pixel) % each == 0 && m.p.task % each == 0 &&
                       (uintptr_t)m.p.data % 16 == 0);
}

/* ---- device ---- */

/* where channel c of a pixel lies, from the task on */
PLANE_DEVICE int64_t image_at(const image_plane &m, int32_t t, int32_t h, int32_t w, int32_t c) {
  return (int64_t)t * m.p.row + (int64_t)h * m.line + (int64_t)w * m.pixel + (int64_t)c * m.p.col;
}

/* N channels side by side; zeros where the task has none */
template <int N>
PLANE_DEVICE void image_get(const image_plane &m, const char *task, int64_t at, float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = 0.0f;
  if (!task) return;
  if constexpr (N == 4) plane_get_4(m.p, task, at, x);
  else x[0] = plane_get(m.p, task, at);
}
template <int N>
PLANE_DEVICE void image_put(const image_plane &m, char *task, int64_t at, const float (&x)[N], bool add) {
  if constexpr (N == 4) plane_put_4(m.p, task, at, x, add);
  else plane_put(m.p, task, at, (double)x[0], add);
}

#endif
