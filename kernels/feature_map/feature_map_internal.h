/* feature_map_internal.h: the maps by number, and the directions of favor */
#ifndef MICA_KERNELS_FEATURE_MAP_INTERNAL_H
#define MICA_KERNELS_FEATURE_MAP_INTERNAL_H

#include "common/philox.h"
#include "feature_map/feature_map.h"

enum { FEATURE_IDENTITY, FEATURE_ELU1, FEATURE_DPFP, FEATURE_FAVOR, FEATURE_SOFTMAX, FEATURE_SILU_L2, FEATURE_L1,
       FEATURE_L2, FEATURE_MAPS };
enum { FEATURE_MOST_D = 256, FEATURE_MOST_F = 4096 };

/* doubles that feature_directions works in: one block of orthogonal rows */
static inline int64_t feature_block(const mica_feature_map_args *a) { return (a->F < a->D ? a->F : a->D) * a->D; }

typedef void (*feature_put_fn)(void *to, int64_t m, int64_t d, double w);

/* the directions w (F,D), each given to `put`. Gram and Schmidt, twice is enough (Kahan; Parlett) */
static inline void feature_directions(const mica_feature_map_args *a, double *block, feature_put_fn put, void *to) {
  micak_philox_key key = micak_philox_key_of((uint64_t)a->seed, micak_hash_name("feature_map favor"), (uint64_t)a->D);
  micak_stream direction = micak_stream_at(key, 0, 0), size = micak_stream_at(key, 0, 1);
  int64_t D = a->D;
  for (int64_t m = 0; m < a->F; m++) {
    double *row = block + m % D * D, length = 0, norm;
    for (int64_t d = 0; d < D; d++) row[d] = micak_stream_normal(&direction);
    for (int pass = 0; pass < 2; pass++)
      for (int64_t r = 0; r < m % D; r++) {
        double dot = 0;
        for (int64_t d = 0; d < D; d++) dot += row[d] * block[r * D + d];
        for (int64_t d = 0; d < D; d++) row[d] -= dot * block[r * D + d];
      }
    norm = 0;
    for (int64_t d = 0; d < D; d++) norm += row[d] * row[d];
    norm = sqrt(norm);
    for (int64_t d = 0; d < D; d++) {
      double z = micak_stream_normal(&size);
      row[d] /= norm;
      length += z * z;
    }
    length = sqrt(length);
    for (int64_t d = 0; d < D; d++) put(to, m, d, row[d] * length);
  }
}

#endif
