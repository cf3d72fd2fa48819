#include "common/prepare.h"

/* of all rooms that have any; each ends with an empty entry */
extern const micak_prepare micak_linear_prepare[];

const micak_prepare *micak_prepare_of(const mica_kernel *kernel) {
  static const micak_prepare *const rooms[] = { micak_linear_prepare };
  for (size_t r = 0; kernel && r < MICA_COUNT(rooms); r++)
    for (const micak_prepare *p = rooms[r]; p->kernel; p++)
      if (p->kernel == kernel->run) return p;
  return NULL;
}
