/* planted faults, each beside its correct twin: `cuda_faults NAME` runs the twin, `cuda_faults NAME fault` the fault.
 * exits 0 when results are right and no call failed, 1 with a line on what was wrong. faults.py runs them under every
 * executor and demands that the fault is found and its twin is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cuda_ptx.cuh"

/* ---- kernels ---- */

enum { N = 256 };

/* a sum over a block in shared memory; the fault: no barrier between levels of the tree */
static __global__ void barrier_tree(const float *in, float *out, bool fault) {
  __shared__ float part[N];
  int t = (int)threadIdx.x;
  part[t] = in[t];
  __syncthreads();
  for (int half = N / 2; half; half /= 2) {
    if (t < half) part[t] += part[t + half];
    if (!fault) __syncthreads();
  }
  if (!fault) __syncthreads();
  if (t == 0) out[0] = part[0];
}

/* rows shifted through shared memory; the fault: the next row overwrites what others still read */
static __global__ void barrier_reuse(const float *in, float *out, int rows, bool fault) {
  __shared__ float row[N];
  int t = (int)threadIdx.x;
  for (int r = 0; r < rows; r++) {
    row[t] = in[r * N + t];
    __syncthreads();
    out[r * N + t] = row[(t + 37) % N];
    if (!fault) __syncthreads();
  }
}

/* the same by copies two rows ahead; the fault: a copy is issued into the half that others still read. it shows in
 * results only where the copy lands at once */
static __global__ void barrier_copy(const float *in, float *out, int rows, bool fault) {
  __shared__ __align__(16) float half[2][N];
  int t = (int)threadIdx.x;
  out += blockIdx.x * rows * N;
  ptx_copy_async<4>(&half[0][t], in + t, true);
  ptx_copy_commit();
  for (int r = 0; r < rows; r++) {
    ptx_copy_async<4>(&half[(r + 1) & 1][t], in + (r + 1) * N + t, r + 1 < rows);
    ptx_copy_commit();
    ptx_copy_wait<1>();
    __syncthreads();
    out[r * N + t] = half[r & 1][(t + 37) % N];
    if (!fault) __syncthreads();
  }
}

/* the fault: a copy is read before it was waited for */
static __global__ void copy_wait(const float *in, float *out, bool fault) {
  __shared__ __align__(16) float row[N];
  int t = (int)threadIdx.x;
  out += blockIdx.x * N;
  ptx_copy_async<4>(&row[t], in + t, true);
  ptx_copy_commit();
  if (!fault) ptx_copy_wait<0>();
  __syncthreads();
  out[t] = row[(t + 37) % N];
}

/* out[i] = 2 in[i]; the fault: one element too many */
static __global__ void global_bounds(const float *in, float *out, int n, bool fault) {
  int i = (int)threadIdx.x;
  if (fault ? i <= n : i < n) out[i] = 2 * (i < n ? in[i] : 0.0f);
}
static __global__ void static_bounds(const float *in, float *out, bool fault) {
  __shared__ float row[N];
  int t = (int)threadIdx.x;
  row[fault ? t + 1 : t] = in[t];            /* thread 255 writes behind it */
  __syncthreads();
  out[t] = row[fault ? (t + 1) % (N + 1) : t];
}
static __global__ void dynamic_bounds(const float *in, float *out, bool fault) {
  DYN_SMEM(float, row);
  int t = (int)threadIdx.x;
  row[fault ? t + 1 : t] = in[t];            /* N floats at the launch */
  __syncthreads();
  out[t] = row[fault ? t + 1 : t];
}

/* D = A B by one warp, A (16, 16), B (16, 8), bf16 as fp32; the fault: b's registers the wrong way round */
static __global__ void fragment(const float *A, const float *B, float *D, bool fault) {
  int      lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t a[4], b[2];
  float    d[4] = { 0, 0, 0, 0 };
  for (int r = 0; r < 4; r++) {
    const float *at = A + (g + 8 * (r & 1)) * 16 + 2 * t + 8 * (r >> 1);
    a[r] = ptx_pack_bf16(at[0], at[1]);
  }
  for (int r = 0; r < 2; r++) {
    const float *at = B + (2 * t + 8 * (fault ? 1 - r : r)) * 8 + g;
    b[r] = ptx_pack_bf16(at[0], at[8]);
  }
  ptx_mma_bf16(d, a, b);
  for (int r = 0; r < 4; r++) D[(g + 8 * (r >> 1)) * 8 + 2 * t + (r & 1)] = d[r];
}

/* the sum of n <= 256 numbers a warp; the fault: only lanes of the tail shuffle, with a full mask */
static __global__ void ragged_mask(const float *in, float *out, int n, bool fault) {
  int   i = (int)threadIdx.x;
  float x = i < n ? in[i] : 0.0f;
  if (!fault || i < n)
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  if (i < n) out[i] = x;
}

/* each thread of a block takes two places on; the fault: one barrier in a branch that half of the block takes */
static __global__ void divergent_barrier(const float *in, float *out, bool fault) {
  __shared__ float row[N];
  int t = (int)threadIdx.x;
  row[t] = in[t];
  if (fault && t < N / 2) __syncthreads();
  else if (fault) row[t] += 0.0f;
  __syncthreads();
  out[t] = row[(t + 2) % N];
}

/* the fault: shared memory that nobody has written */
static __global__ void unwritten(const float *in, float *out, bool fault) {
  __shared__ float row[N];
  int t = (int)threadIdx.x;
  if (!fault || t % 32) row[t] = in[t];
  __syncthreads();
  out[t] = row[(t + 2) % N];
}

/* the fault: four floats at an address that is not a multiple of 16 */
static __global__ void alignment(const float *in, float *out, bool fault) {
  int t = (int)threadIdx.x;
  if (t >= N / 4 - 1) return;
  float4 x = *reinterpret_cast<const float4 *>(in + 4 * t + (fault ? 1 : 0));
  *reinterpret_cast<float4 *>(out + 4 * t) = x;
}

/* blocks add to one place; the fault: without an atomic, and with a block's own read of it */
static __global__ void block_race(const float *in, float *out, bool fault) {
  int t = (int)threadIdx.x;
  if (t >= 1) return;
  if (fault) out[0] = out[0] + in[blockIdx.x];
  else out[blockIdx.x] = in[blockIdx.x];
}

static __global__ void copy_slowly(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x]; }

/* ---- host ---- */

static float  given[64 * N], got[64 * N], want[64 * N];
static int    failed;
static float *in, *out;

static void must(const char *what, cudaError_t code) {
  if (code == cudaSuccess || failed) return;
  printf("%s: %s\n", what, cudaGetErrorString(code));
  failed = 1;
}
static void must(const char *what, mica_status status) {
  if (status >= 0 || failed) return;
  printf("%s: %s\n", what, mica_last_error());
  failed = 1;
}
static void compare(int n) {
  must("cudaDeviceSynchronize", cudaDeviceSynchronize());
  if (!failed) must("cudaMemcpy", cudaMemcpy(got, out, (size_t)n * 4, cudaMemcpyDeviceToHost));
  for (int i = 0; i < n && !failed; i++)
    if (!(got[i] == want[i])) {
      printf("wrong result: element %d is %g, expected %g\n", i, got[i], want[i]);
      failed = 1;
    }
}
#define LAUNCH(kernel, blocks, threads, dynamic, ...) \
  must("launch", micak_launch(#kernel, kernel, dim3(blocks), dim3(threads), dynamic, NULL, __VA_ARGS__))

static void run(const char *name, bool fault) {
  const int rows = 8, tail = N - 11;
#define IS(what) (!strcmp(name, #what))
  for (int i = 0; i < rows * N; i++) want[i] = given[i / N * N + (i % N + 37) % N];
  if (IS(barrier_tree)) {
    want[0] = 0;
    for (int i = 0; i < N; i++) want[0] += given[i];
    LAUNCH(barrier_tree, 1, N, 0, in, out, fault);
    compare(1);
  } else if (IS(barrier_reuse)) {
    LAUNCH(barrier_reuse, 1, N, 0, in, out, rows, fault);
    compare(rows * N);
  } else if (IS(barrier_copy)) {
    memcpy(want + rows * N, want, (size_t)rows * N * 4);
    LAUNCH(barrier_copy, 2, N, 0, in, out, rows, fault);
    compare(2 * rows * N);
  } else if (IS(copy_wait)) {
    memcpy(want + N, want, N * 4);
    LAUNCH(copy_wait, 2, N, 0, in, out, fault);
    compare(2 * N);
  } else if (IS(global_bounds)) {
    float *small;
    must("cudaMalloc", cudaMalloc((void **)&small, (size_t)tail * 4));
    for (int i = 0; i < tail; i++) want[i] = 2 * given[i];
    LAUNCH(global_bounds, 1, N, 0, in, small, tail, fault);
    float *keep = out;
    out = small;
    compare(tail);
    out = keep;
  } else if (IS(static_bounds) || IS(dynamic_bounds)) {
    memcpy(want, given, sizeof want);
    if (IS(static_bounds)) LAUNCH(static_bounds, 1, N, 0, in, out, fault);
    else LAUNCH(dynamic_bounds, 1, N, N * 4, in, out, fault);
    compare(N - 1);
  } else if (IS(fragment)) {
    for (int i = 0; i < 16; i++)
      for (int j = 0; j < 8; j++) {
        want[i * 8 + j] = 0;
        for (int k = 0; k < 16; k++) want[i * 8 + j] += given[i * 16 + k] * given[N + k * 8 + j];
      }
    LAUNCH(fragment, 1, 32, 0, in, in + N, out, fault);
    compare(128);
  } else if (IS(ragged_mask)) {
    for (int i = 0; i < tail; i++) {
      want[i] = 0;
      for (int k = i / 32 * 32; k < i / 32 * 32 + 32 && k < tail; k++) want[i] += given[k];
    }
    LAUNCH(ragged_mask, 1, N, 0, in, out, tail, fault);
    compare(tail);
  } else if (IS(divergent_barrier) || IS(unwritten)) {
    for (int i = 0; i < N; i++) want[i] = given[(i + 2) % N];
    if (IS(unwritten)) LAUNCH(unwritten, 1, N, 0, in, out, fault);
    else LAUNCH(divergent_barrier, 1, N, 0, in, out, fault);
    compare(N);
  } else if (IS(alignment)) {
    memcpy(want, given + (fault ? 1 : 0), N * 4);
    LAUNCH(alignment, 1, N, 0, in, out, fault);
    compare(N - 4);
  } else if (IS(block_race)) {
    must("cudaMemset", cudaMemset(out, 0, N * 4));
    float all = 0;
    for (int i = 0; i < 4; i++) all += want[i] = given[i];
    if (fault) want[0] = all;
    LAUNCH(block_race, 4, 32, 0, in, out, fault);
    compare(fault ? 1 : 4);
  } else if (IS(event_wait)) {
    cudaStream_t a, b;
    cudaEvent_t  e;
    float       *between;
    memcpy(want, given, sizeof want);
    must("cudaMalloc", cudaMalloc((void **)&between, N * 4));
    must("cudaStreamCreate", cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    must("cudaStreamCreate", cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    must("cudaEventCreate", cudaEventCreateWithFlags(&e, cudaEventDefault));
    must("launch", micak_launch("copy_slowly", copy_slowly, dim3(1), dim3(N), 0, a, in, between));
    must("cudaEventRecord", cudaEventRecord(e, a));
    if (!fault) must("cudaStreamWaitEvent", cudaStreamWaitEvent(b, e, 0));
    must("launch", micak_launch("copy_slowly", copy_slowly, dim3(1), dim3(N), 0, b, between, out));
    must("cudaStreamSynchronize", cudaStreamSynchronize(b));
    must("cudaMemcpyAsync", cudaMemcpyAsync(got, out, N * 4, cudaMemcpyDeviceToHost, b));
    must("cudaStreamSynchronize", cudaStreamSynchronize(b));
    for (int i = 0; i < N && !failed; i++)
      if (got[i] != want[i]) printf("wrong result: element %d is %g, expected %g\n", i, got[i], want[i]), failed = 1;
  } else if (IS(host_access)) {
    if (fault) got[0] = *(volatile float *)in;
    else must("cudaMemcpy", cudaMemcpy(got, in, 4, cudaMemcpyDeviceToHost));
  } else if (IS(launch_error)) {
    memcpy(want, given, sizeof want);
    /* too many threads; the fault forgets to look at the status */
    mica_status status = micak_launch("copy_slowly", copy_slowly, dim3(1), dim3(2 * 1024), 0, NULL, in, out);
    if (!fault && status >= 0) printf("the launch of 2048 threads was taken\n"), failed = 1;
    if (!fault) LAUNCH(copy_slowly, 1, N, 0, in, out);
    compare(N);
  } else {
    printf("no fault is called %s\n", name);
    failed = 2;
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return fputs("cuda_faults NAME [fault]\n", stderr), 2;
  for (int i = 0; i < 64 * N; i++) given[i] = (float)(i * 37 % 61 - 30);
  must("cudaMalloc", cudaMalloc((void **)&in, sizeof given));
  must("cudaMalloc", cudaMalloc((void **)&out, sizeof given));
  must("cudaMemset", cudaMemset(out, 0xff, sizeof given));
  must("cudaMemcpy", cudaMemcpy(in, given, sizeof given, cudaMemcpyHostToDevice));
  if (!failed) run(argv[1], argc > 2);
  if (!failed) puts("ok");
  return failed;
}
