/* the layouts and exchanges of a warp, against tables typed from NVIDIA's manual (PTX ISA 8.5, sections 9.7.14.5.8 "matrix
 * fragments for mma.m16n8k16", 9.7.14.5.6 "m16n8k8", 9.7.14.5.15 "ldmatrix") and against plain loops. the same program is
 * run by every executor: an emulator that read the manual wrongly would disagree here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cuda_ptx.cuh"
#include "common/cuda_reduce.cuh"

static int red;
static void check(const char *what, bool ok) {
  if (!ok) printf("RED %s\n", what), red = 1;
}

/* ---- tables: row and column of element i of a fragment, for a lane ---- */

struct spot {
  int row, column;
};
/* m16n8k16, 16-bit A: elements a0 .. a7, two a register */
static spot a16(int lane, int i) {
  int group = lane >> 2, in_group = lane % 4;
  spot s;
  s.row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
  s.column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
  return s;
}
/* B: b0 .. b3 */
static spot b16(int lane, int i) {
  int group = lane >> 2, in_group = lane % 4;
  spot s;
  s.row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
  s.column = group;
  return s;
}
/* m16n8k8, tf32 A: a0 .. a3 */
static spot a8(int lane, int i) {
  int group = lane >> 2, in_group = lane % 4;
  spot s;
  s.row = i == 0 || i == 2 ? group : group + 8;
  s.column = i == 0 || i == 1 ? in_group : in_group + 4;
  return s;
}
/* B: b0, b1 */
static spot b8(int lane, int i) {
  int group = lane >> 2, in_group = lane % 4;
  spot s;
  s.row = i == 0 ? in_group : in_group + 4;
  s.column = group;
  return s;
}
/* C and D of both: c0 .. c3 */
static spot c16(int lane, int i) {
  int group = lane >> 2, in_group = lane % 4;
  spot s;
  s.row = i < 2 ? group : group + 8;
  s.column = in_group * 2 + (i & 1);
  return s;
}

/* ---- kernels: registers in and out as they are ---- */

static __global__ void mma_bf16(const uint32_t *a, const uint32_t *b, float *d) {
  int      lane = (int)threadIdx.x;
  uint32_t x[4], y[2];
  float    z[4];
  for (int i = 0; i < 4; i++) x[i] = a[lane * 4 + i], z[i] = d[lane * 4 + i];
  for (int i = 0; i < 2; i++) y[i] = b[lane * 2 + i];
  ptx_mma_bf16(z, x, y);
  for (int i = 0; i < 4; i++) d[lane * 4 + i] = z[i];
}
static __global__ void mma_tf32(const uint32_t *a, const uint32_t *b, float *d) {
  int      lane = (int)threadIdx.x;
  uint32_t x[4], y[2];
  float    z[4];
  for (int i = 0; i < 4; i++) x[i] = a[lane * 4 + i], z[i] = d[lane * 4 + i];
  for (int i = 0; i < 2; i++) y[i] = b[lane * 2 + i];
  ptx_mma_tf32(z, x, y);
  for (int i = 0; i < 4; i++) d[lane * 4 + i] = z[i];
}
static __global__ void load_matrices(uint32_t *out) {
  __shared__ __align__(16) uint16_t rows[32][8];
  int lane = (int)threadIdx.x;
  for (int i = 0; i < 8; i++) rows[lane][i] = (uint16_t)(lane * 8 + i);
  __syncthreads();
  uint32_t r[4], s[2], t[1];
  ptx_ldmatrix_x4(r, rows[lane]);
  for (int i = 0; i < 4; i++) out[lane * 14 + i] = r[i];
  ptx_ldmatrix_x4_trans(r, rows[lane]);
  for (int i = 0; i < 4; i++) out[lane * 14 + 4 + i] = r[i];
  ptx_ldmatrix_x2(s, rows[lane % 16]);
  for (int i = 0; i < 2; i++) out[lane * 14 + 8 + i] = s[i];
  ptx_ldmatrix_x2_trans(s, rows[lane % 16]);
  for (int i = 0; i < 2; i++) out[lane * 14 + 10 + i] = s[i];
  ptx_ldmatrix_x1(t, rows[lane % 8]);
  out[lane * 14 + 12] = t[0];
  ptx_ldmatrix_x1_trans(t, rows[lane % 8]);
  out[lane * 14 + 13] = t[0];
}
static __global__ void exchange(const int *in, int *out) {
  int lane = (int)(threadIdx.x & 31), at = (int)threadIdx.x, x = in[at];
  int *o = out + at * 16;
  o[0] = __shfl_sync(~0u, x, 5);
  o[1] = __shfl_xor_sync(~0u, x, 9);
  o[2] = __shfl_down_sync(~0u, x, 3);
  o[3] = __shfl_up_sync(~0u, x, 3);
  o[4] = __shfl_sync(~0u, x, lane + 1, 8);
  o[5] = (int)__ballot_sync(~0u, x > 0);
  o[6] = __any_sync(~0u, x > 90);
  o[7] = __all_sync(~0u, x > -200);
  o[8] = __reduce_add_sync(~0u, x);
  o[9] = __reduce_min_sync(~0u, x);
  o[10] = __reduce_max_sync(~0u, x);
  o[11] = (int)__reduce_or_sync(~0u, (unsigned)x);
  o[12] = lane < 16 ? __shfl_xor_sync(0xffffu, x, 1) : __shfl_xor_sync(0xffff0000u, x, 2);
  o[13] = __syncthreads_count(x > 0);
  o[14] = __syncthreads_or(x > 1000);
  __shared__ int shared[32];
  o[15] = block_max(x, shared);
}
static __global__ void count(unsigned *total, float *sum, unsigned *most) {
  atomicAdd(total, 1u);
  atomicAdd(sum, 0.5f);
  atomicMax(most, blockIdx.x * blockDim.x + threadIdx.x);
}
static __global__ void large(const float *in, float *out, int n) {
  DYN_SMEM(float, all);
  for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) all[i] = in[i];
  __syncthreads();
  for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) out[i] = all[n - 1 - i];
}

/* ---- host ---- */

static void must(const char *what, int ok) {
  if (ok) return;
  printf("RED %s: %s; %s\n", what, mica_last_error(), cudaGetErrorString(cudaPeekAtLastError()));
  exit(1);
}
static void *device(const void *host, size_t bytes) {
  void *at;
  must("cudaMalloc", cudaMalloc(&at, bytes) == cudaSuccess);
  must("cudaMemcpy", cudaMemcpy(at, host, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
  return at;
}
static void back(void *host, void *at, size_t bytes) {
  must("cudaMemcpy", cudaMemcpy(host, at, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
  must("cudaFree", cudaFree(at) == cudaSuccess);
}
static uint16_t bf16(float x) {              /* of a number that has one */
  uint32_t u;
  memcpy(&u, &x, 4);
  return (uint16_t)(u >> 16);
}

static void check_mma(int k) {
  float A[16][16], B[16][8], C[16][8];
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) A[i][j] = (float)((i * 16 + j) * 29 % 127 - 63), B[j][i % 8] = (float)((j * 8 + i) * 11 % 125 - 60);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) C[i][j] = (float)(i - j);
  static uint32_t a[32 * 4], b[32 * 2];
  static float    d[32 * 4];
  memset(a, 0, sizeof a), memset(b, 0, sizeof b);
  for (int lane = 0; lane < 32; lane++) {
    for (int i = 0; i < (k == 16 ? 8 : 4); i++) {
      spot s = k == 16 ? a16(lane, i) : a8(lane, i);
      if (k == 16) a[lane * 4 + i / 2] |= (uint32_t)bf16(A[s.row][s.column]) << 16 * (i & 1);
      else memcpy(&a[lane * 4 + i], &A[s.row][s.column], 4);
    }
    for (int i = 0; i < (k == 16 ? 4 : 2); i++) {
      spot s = k == 16 ? b16(lane, i) : b8(lane, i);
      if (k == 16) b[lane * 2 + i / 2] |= (uint32_t)bf16(B[s.row][s.column]) << 16 * (i & 1);
      else memcpy(&b[lane * 2 + i], &B[s.row][s.column], 4);
    }
    for (int i = 0; i < 4; i++) d[lane * 4 + i] = C[c16(lane, i).row][c16(lane, i).column];
  }
  void *pa = device(a, sizeof a), *pb = device(b, sizeof b), *pd = device(d, sizeof d);
  must("mma", micak_launch("mma", k == 16 ? mma_bf16 : mma_tf32, dim3(1), dim3(32), 0, NULL, (const uint32_t *)pa,
                           (const uint32_t *)pb, (float *)pd) >= 0);
  back(d, pd, sizeof d);
  cudaFree(pa), cudaFree(pb);
  bool ok = true;
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < 4; i++) {
      spot  s = c16(lane, i);
      float want = C[s.row][s.column];
      for (int n = 0; n < k; n++) want += A[s.row][n] * B[n][s.column];
      ok &= d[lane * 4 + i] == want;
    }
  check(k == 16 ? "mma.m16n8k16 bf16" : "mma.m16n8k8 tf32", ok);
}

static void check_ldmatrix(void) {
  static uint32_t got[32 * 14];
  void *at = device(got, sizeof got);
  must("ldmatrix", micak_launch("ldmatrix", load_matrices, dim3(1), dim3(32), 0, NULL, (uint32_t *)at) >= 0);
  back(got, at, sizeof got);
  static const int first[6] = { 0, 4, 8, 10, 12, 13 }, matrices[6] = { 4, 4, 2, 2, 1, 1 };
  for (int v = 0; v < 6; v++) {
    bool ok = true;
    for (int lane = 0; lane < 32; lane++)
      for (int m = 0; m < matrices[v]; m++)
        for (int e = 0; e < 2; e++) {
          /* row r of a matrix goes to lanes 4r .. 4r+3, two elements each; transposed: column r */
          int row = lane / 4, column = lane % 4 * 2 + e;
          int value = v & 1 ? (m * 8 + column) * 8 + row : (m * 8 + row) * 8 + column;
          ok &= (got[lane * 14 + first[v] + m] >> 16 * e & 0xffff) == (uint32_t)value;
        }
    check("ldmatrix", ok);
  }
}

static void check_exchange(void) {
  enum { T = 96 };
  static int in[T], out[T * 16];
  for (int i = 0; i < T; i++) in[i] = i * 53 % 199 - 100;
  void *pi = device(in, sizeof in), *po = device(out, sizeof out);
  must("exchange", micak_launch("exchange", exchange, dim3(1), dim3(T), 0, NULL, (const int *)pi, (int *)po) >= 0);
  back(out, po, sizeof out);
  cudaFree(pi);
  bool ok[16];
  memset(ok, 1, sizeof ok);
  int positive = 0, most = -1000;
  for (int i = 0; i < T; i++) positive += in[i] > 0, most = in[i] > most ? in[i] : most;
  for (int i = 0; i < T; i++) {
    const int *w = in + i / 32 * 32, *o = out + i * 16, lane = i % 32;
    unsigned ballot = 0, bits = 0;
    int sum = 0, low = 1000, high = -1000;
    for (int k = 0; k < 32; k++) {
      ballot |= (unsigned)(w[k] > 0) << k, bits |= (unsigned)w[k], sum += w[k];
      low = w[k] < low ? w[k] : low, high = w[k] > high ? w[k] : high;
    }
    int want[16] = { w[5], w[lane ^ 9], lane + 3 < 32 ? w[lane + 3] : w[lane], lane >= 3 ? w[lane - 3] : w[lane],
                     w[(lane & ~7) | ((lane + 1) & 7)], (int)ballot, high > 90, 1, sum, low, high, (int)bits,
                     w[lane ^ (lane < 16 ? 1 : 2)], positive, 0, most };
    for (int k = 0; k < 16; k++) ok[k] &= o[k] == want[k];
  }
  static const char *const names[16] = { "shfl", "shfl_xor", "shfl_down", "shfl_up", "shfl of 8", "ballot", "any", "all", "reduce_add",
    "reduce_min", "reduce_max", "reduce_or", "half masks", "syncthreads_count", "syncthreads_or", "block_max" };
  for (int k = 0; k < 16; k++) check(names[k], ok[k]);
}

static void check_rest(void) {
  struct { unsigned total; float sum; unsigned most; } c = { 0, 0, 0 };
  char *at = (char *)device(&c, sizeof c);
  must("count", micak_launch("count", count, dim3(5), dim3(70), 0, NULL, (unsigned *)at, (float *)(at + 4), (unsigned *)(at + 8)) >= 0);
  back(&c, at, sizeof c);
  check("atomics", c.total == 350 && c.sum == 175.0f && c.most == 349);
  enum { MANY = 24000 };                     /* 96 KB: beyond 48 KB micak_launch opts in */
  static float in[MANY], out[MANY];
  for (int i = 0; i < MANY; i++) in[i] = (float)i;
  void *pi = device(in, sizeof in), *po = device(out, sizeof out);
  must("large", micak_launch("large", large, dim3(1), dim3(256), sizeof in, NULL, (const float *)pi, (float *)po, MANY) >= 0);
  back(out, po, sizeof out);
  cudaFree(pi);
  bool ok = true;
  for (int i = 0; i < MANY; i++) ok &= out[i] == in[MANY - 1 - i];
  check("96 KB of shared memory", ok);
  /* what a device refuses */
  void *null = NULL;
  check("2048 threads", micak_launch("large", large, dim3(1), dim3(2048), 0, NULL, (const float *)null, (float *)null, 0) < 0);
  check("4 MB of shared memory",
        micak_launch("large", large, dim3(1), dim3(32), (size_t)4 << 20, NULL, (const float *)null, (float *)null, 0) < 0);
  check("no blocks: nothing to do",
        micak_launch("large", large, dim3(0), dim3(32), 0, NULL, (const float *)null, (float *)null, 0) == MICA_OK);
  check("no error is left", cudaPeekAtLastError() == cudaSuccess);
}

int main(void) {
  check_mma(16);
  check_mma(8);
  check_ldmatrix();
  check_exchange();
  check_rest();
  puts(red ? "red" : "ok");
  return red;
}
