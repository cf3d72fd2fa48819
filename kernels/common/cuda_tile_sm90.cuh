/* cuda_tile_sm90.cuh: tiles of bf16 rows on sm_90a: the tensor memory accelerator (TMA) copies them, mbarriers tell when,
 * warpgroups of 128 threads multiply them (wgmma). for files named _sm90.
 *
 * a tile is `rows` rows of 64 columns (128 bytes), or two of these one behind the other, at a multiple of 1024 bytes; the
 * 16-byte piece p of row r lies at p ^ (r % 8), the 128-byte swizzle that TMA writes and wgmma reads.
 * fragments (PTX ISA, "register fragments for wgmma.mma_async.m64nNk16"), with warp w of the group, g = lane / 4, t = lane % 4:
 *   sums, 64 x N       d[4 n + e]   row 16 w + g + 8 (e / 2), column 8 n + 2 t + e % 2
 *   left, 64 x 16      a[e]         row 16 w + g + 8 (e % 2), terms 8 (e / 2) + 2 t, + 1: the sums of two eights, packed */
#ifndef MICA_KERNELS_COMMON_CUDA_TILE_SM90_CUH
#define MICA_KERNELS_COMMON_CUDA_TILE_SM90_CUH

#include <cuda.h>

#include "common/cuda_ptx.cuh"

/* nvcc -arch=sm_90a compiles for sm_90 too, which has none of these: nothing that runs */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define TILE90_ONLY(text) text
#else
#define TILE90_ONLY(text) "trap;"
#endif

enum { TILE90_ROWS = 64, TILE90_COLUMNS = 64, TILE90_ROW = 128, TILE90_NONE = -1 };

/* ---- mbarriers: a phase ends when `count` have arrived and all bytes that were announced have come ---- */

PTX_DEVICE void ptx_barrier_init(uint64_t *barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ptx_shared(barrier)), "r"(count) : "memory");
}
/* before the block's barrier, by who has initialised: TMA sees them too */
PTX_DEVICE void ptx_barrier_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
PTX_DEVICE void ptx_barrier_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(ptx_shared(barrier)) : "memory");
}
PTX_DEVICE void ptx_barrier_expect(uint64_t *barrier, uint32_t bytes) { /* and arrive */
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(ptx_shared(barrier)), "r"(bytes) : "memory");
}
/* until the phase of this parity has ended: 0 for the first, and 1 passes at once on a new barrier */
PTX_DEVICE void ptx_barrier_wait(uint64_t *barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(ptx_shared(barrier)), "r"(parity)
                 : "memory");
  } while (!done);
}

/* ---- copies from global to shared memory, by one thread ---- */

/* contiguous bytes; both sides and the number multiples of 16 */
PTX_DEVICE void ptx_copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   ptx_shared(shared)),
               "l"(global), "r"(bytes), "r"(ptx_shared(barrier))
               : "memory");
}
/* a box of a tensor map; zeros for what lies outside, which counts as come too */
PTX_DEVICE void ptx_copy_box(void *shared, const CUtensorMap *map, const int (&at)[4], uint64_t *barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
               "[%6];" ::"r"(ptx_shared(shared)),
               "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(ptx_shared(barrier))
               : "memory");
}

/* registers of a warpgroup's threads, from here on: what the copying one gives up the others take */
template <int N>
PTX_DEVICE void ptx_registers_more() {
  asm volatile(TILE90_ONLY("setmaxnreg.inc.sync.aligned.u32 %0;") ::"n"(N));
}
template <int N>
PTX_DEVICE void ptx_registers_fewer() {
  asm volatile(TILE90_ONLY("setmaxnreg.dec.sync.aligned.u32 %0;") ::"n"(N));
}

/* 2^x to two ulp; denormals are zeros */
PTX_DEVICE float ptx_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* ---- wgmma ---- */

PTX_DEVICE void ptx_wgmma_fence() { asm volatile(TILE90_ONLY("wgmma.fence.sync.aligned;") ::: "memory"); }
PTX_DEVICE void ptx_wgmma_commit() { asm volatile(TILE90_ONLY("wgmma.commit_group.sync.aligned;") ::: "memory"); }
/* until at most GROUPS are under way; then tile90_hold what they have summed */
template <int GROUPS>
PTX_DEVICE void ptx_wgmma_wait() {
  asm volatile(TILE90_ONLY("wgmma.wait_group.sync.aligned %0;") ::"n"(GROUPS) : "memory");
}
/* no use of these sums moves across */
template <int N>
PTX_DEVICE void tile90_hold(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

/* where wgmma reads: rows of a tile from `at` on, a multiple of 1024 bytes but for steps along a row. `half`: bytes from
 * one half of 64 columns to the other, where columns are what is not summed over */
PTX_DEVICE uint64_t tile90_at(const void *at, uint32_t half) {
  enum { EIGHT_ROWS = 1024, SWIZZLE_128 = 1 };
  return (uint64_t)(ptx_shared(at) >> 4 & 0x3fffu) | (uint64_t)(half >> 4) << 16 | (uint64_t)(EIGHT_ROWS >> 4) << 32 |
         (uint64_t)SWIZZLE_128 << 62;
}

#define TILE90_D32 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define TILE90_D64 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
  "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
  "%62, %63}"
#define TILE90_F8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
  "+f"(d[i + 6]), "+f"(d[i + 7])
#define TILE90_F32(d, i) TILE90_F8(d, i), TILE90_F8(d, i + 8), TILE90_F8(d, i + 16), TILE90_F8(d, i + 24)
#define TILE90_WGMMA(n, d, left, right, keep, last) \
  TILE90_ONLY("{\n.reg .pred p;\nsetp.ne.b32 p, " keep ", 0;\nwgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 " d \
              ", " left ", " right ", p, 1, 1, " last ";\n}")

/* d = (keep: +=) x y^T over 16 columns: 64 rows of x, N of y, both in shared memory */
PTX_DEVICE void tile90_dots(float (&d)[32], uint64_t x, uint64_t y, int keep) {
  asm volatile(TILE90_WGMMA("64", TILE90_D32, "%32", "%33", "%34", "0, 0") : TILE90_F32(d, 0) : "l"(x), "l"(y), "r"(keep));
}
PTX_DEVICE void tile90_dots(float (&d)[64], uint64_t x, uint64_t y, int keep) {
  asm volatile(TILE90_WGMMA("128", TILE90_D64, "%64", "%65", "%66", "0, 0")
               : TILE90_F32(d, 0), TILE90_F32(d, 32)
               : "l"(x), "l"(y), "r"(keep));
}
/* d += p y: 16 terms of p in registers, 16 rows and N columns of y in shared memory */
PTX_DEVICE void tile90_mix(float (&d)[32], const uint32_t (&p)[4], uint64_t y) {
  asm volatile(TILE90_WGMMA("64", TILE90_D32, "{%32, %33, %34, %35}", "%36", "%37", "1")
               : TILE90_F32(d, 0)
               : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(y), "r"(1));
}
PTX_DEVICE void tile90_mix(float (&d)[64], const uint32_t (&p)[4], uint64_t y) {
  asm volatile(TILE90_WGMMA("128", TILE90_D64, "{%64, %65, %66, %67}", "%68", "%69", "1")
               : TILE90_F32(d, 0), TILE90_F32(d, 32)
               : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(y), "r"(1));
}
#undef TILE90_WGMMA
#undef TILE90_F32
#undef TILE90_F8
#undef TILE90_D64
#undef TILE90_D32

/* 64 x N sums of products over COLUMNS columns: rows of x, and of y. HALF: bytes between the halves of each */
template <int COLUMNS, int X_HALF, int Y_HALF, int N>
PTX_DEVICE void tile90_multiply_turned(float (&d)[N], const uint8_t *x, const uint8_t *y) {
#pragma unroll
  for (int k = 0; k < COLUMNS; k += 16) {
    const int column = 2 * (k % 64);
    tile90_dots(d, tile90_at(x + k / 64 * X_HALF + column, 0), tile90_at(y + k / 64 * Y_HALF + column, 0), k > 0);
  }
}
/* sums += p y: p as packed sums of 16 TERMS rows of y */
template <int Y_HALF, int TERMS, int N>
PTX_DEVICE void tile90_multiply(float (&d)[N], const uint32_t (&p)[TERMS][4], const uint8_t *y) {
#pragma unroll
  for (int k = 0; k < TERMS; k++) tile90_mix(d, p[k], tile90_at(y + 16 * k * TILE90_ROW, Y_HALF));
}
/* sums as the left operand of the next product */
template <int N>
PTX_DEVICE void tile90_pack(const float (&d)[N], uint32_t (&p)[N / 8][4]) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) p[i / 4][i % 4] = ptx_pack_bf16(d[2 * i], d[2 * i + 1]);
}

/* ---- rows of a wire with a head axis, as TMA sees them ---- */

/* boxes of 64, 8 and 1 rows by 64 columns over (columns, and rows, heads, tasks by their strides). packed rows end where
 * the next task's begin, which is device data: what is not there is then asked for row by row at places outside */
struct tile90_rows {
  CUtensorMap box[3];
  int32_t     row, head, task;               /* which coordinate each is: 1, 2, 3 */
  int32_t     shared, ends;                  /* all tasks are one; the map ends where a task's rows do */
};

PTX_DEVICE void tile90_box(const tile90_rows &from, int box, int column, int row, int head, int task, void *to,
                           uint64_t *barrier) {
  int at[4] = { column, TILE90_NONE, TILE90_NONE, TILE90_NONE };
  if (row >= 0) {
#pragma unroll
    for (int i = 1; i < 4; i++) at[i] = from.row == i ? row : from.head == i ? head : task;
  }
  ptx_copy_box(to, &from.box[box], at, barrier);
}
/* rows [row, row + rows) and 64 HALVES columns to a tile; of them `count` are there, the rest becomes zeros. by one thread,
 * after ptx_barrier_expect of all bytes */
template <int HALVES>
PTX_DEVICE void tile90_load(const tile90_rows &from, int task, int head, int row, int count, int rows, uint8_t *to,
                            uint64_t *barrier) {
  if (from.shared) task = 0;
#pragma unroll 1
  for (int half = 0; half < HALVES; half++)
#pragma unroll 1
    for (int r = 0, n = TILE90_ROWS; r < rows; r += n) {
      const int left = count - r;
      n = r % TILE90_ROWS == 0 && (left >= TILE90_ROWS || left <= 0 || from.ends) ? TILE90_ROWS
          : r % 8 == 0 && (left >= 8 || left <= 0)                                ? 8
                                                                                  : 1;
      tile90_box(from, n == 1 ? 2 : n == 8 ? 1 : 0, half * TILE90_COLUMNS, left > 0 ? row + r : TILE90_NONE, head, task,
                 to + (half * rows + r) * TILE90_ROW, barrier);
    }
}

/* ---- host ---- */

/* of a wire that wire_by_boxes, of tasks of at most `most` rows */
static inline mica_status tile90_rows_of(const char *name, const mica_wire &w, bool packed, int64_t tasks, int64_t most,
                                         int64_t heads, int64_t D, tile90_rows *rows) {
  void *entry = NULL;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
  if (code != cudaSuccess) return micak_cuda_error("cudaGetDriverEntryPointByVersion", name, code);
  if (!entry) return mica_error(MICA_ERR_UNSUPPORTED, "%s: this CUDA driver has no cuTensorMapEncodeTiled: it needs 12.0", name);
  rows->shared = packed || w.task_stride == 0 || (tasks == 1 && !w.slot), rows->ends = !packed;
  /* axes of one place take any stride. how many slots there are the device knows */
  const int64_t slots = rows->shared ? 1 : w.slot ? 0x7fffffff : tasks, row = w.stride[0];
  struct { int32_t *coordinate; cuuint64_t size, stride; } axis[3] = {
    { &rows->row, (cuuint64_t)(packed ? tasks * most : most), (cuuint64_t)row },
    { &rows->head, (cuuint64_t)heads, (cuuint64_t)(heads == 1 ? row : w.stride[1]) },
    { &rows->task, (cuuint64_t)slots, (cuuint64_t)(rows->shared ? row : w.task_stride) },
  };
  for (int i = 0; i < 3; i++)                /* by stride */
    for (int j = i + 1; j < 3; j++)
      if (axis[j].stride < axis[i].stride) {
        const auto keep = axis[i];
        axis[i] = axis[j], axis[j] = keep;
      }
  cuuint64_t size[4] = { (cuuint64_t)D }, stride[3];
  for (int i = 0; i < 3; i++) *axis[i].coordinate = i + 1, size[i + 1] = axis[i].size, stride[i] = 2 * axis[i].stride;
  static const cuuint32_t heights[3] = { TILE90_ROWS, 8, 1 };
  for (int b = 0; b < 3; b++) {
    cuuint32_t box[4] = { TILE90_COLUMNS, 1, 1, 1 }, step[4] = { 1, 1, 1, 1 };
    box[rows->row] = heights[b];
    const CUresult result = ((decltype(&cuTensorMapEncodeTiled))entry)(
        &rows->box[b], CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, w.data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
      return mica_error(MICA_ERR_DEVICE, "cuTensorMapEncodeTiled of %s: CUDA error %d", name, (int)result);
  }
  return MICA_OK;
}

#endif
