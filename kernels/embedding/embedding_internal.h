/* embedding_internal.h: what reference, kernels and tables share */
#ifndef MICA_KERNELS_EMBEDDING_INTERNAL_H
#define MICA_KERNELS_EMBEDDING_INTERNAL_H

#include "common/rows.h"
#include "embedding/embedding.h"

enum { EMBEDDING_BLOCK = 64 };               /* columns of one unit of table gradient */

static inline mica_status embedding_token_error(const mica_embedding_args *a, int64_t token, int64_t b, int64_t r) {
  return mica_error(MICA_ERR_INVALID, "embedding: token %lld at task %lld, row %lld, expected 0 to %lld",
                    (long long)token, (long long)b, (long long)r, (long long)a->V - 1);
}

#endif
