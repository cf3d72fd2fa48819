/* planted faults of tiles by TMA, mbarriers and wgmma (kernels/common/cuda_tile_sm90.cuh), as faults.cu:
 * `cuda_faults_sm90 NAME` runs the twin, `cuda_faults_sm90 NAME fault` the fault. */
#include <stdio.h>
#include <string.h>

#include "common/cuda_tile_sm90.cuh"

enum { TILES = 5, ROWS = TILES * 64 - 20, PLACES = 2, TILE_BYTES = 64 * TILE90_ROW };
enum { WAIT, RELEASE, DESCRIPTOR, TAIL, HOLD, FAULTS };
static const char *const names[FAULTS] = { "tile_wait", "tile_release", "tile_descriptor", "tile_tail", "tile_hold" };

/* x x^T of each 64 rows, of which ROWS are there; a warpgroup copies, one multiplies. what `fault` does:
 *   tile_wait        multiplies before the tile has come
 *   tile_release     gives the place back before the products are done
 *   tile_descriptor  takes eight rows for 512 bytes
 *   tile_tail        copies rows beyond the end
 *   tile_hold        reads the sums before they are done */
static __global__ void __launch_bounds__(256) tiles_squared(const __grid_constant__ tile90_rows x, float *out, int fault) {
  __shared__ uint64_t full[PLACES], free[PLACES];
  DYN_SMEM(uint8_t, memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < PLACES; i++) ptx_barrier_init(full + i, 1), ptx_barrier_init(free + i, 4);
    ptx_barrier_ready();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    for (int n = 0; n < TILES && threadIdx.x == 0; n++) {
      ptx_barrier_wait(free + n % PLACES, (n / PLACES & 1) ^ 1);
      ptx_barrier_expect(full + n % PLACES, TILE_BYTES);
      tile90_load<1>(x, 0, 0, 64 * n, fault == TAIL ? 64 : ROWS - 64 * n, 64, memory + n % PLACES * TILE_BYTES, full + n % PLACES);
    }
    return;
  }
  const int warp = (int)threadIdx.x / 32 % 4, lane = (int)threadIdx.x % 32;
  for (int n = 0; n < TILES; n++) {
    const uint8_t *const at = memory + n % PLACES * TILE_BYTES;
    float d[32];
    if (fault != WAIT) ptx_barrier_wait(full + n % PLACES, n / PLACES & 1);
    ptx_wgmma_fence();
    for (int k = 0; k < 4; k++) {
      const uint64_t rows = tile90_at(at + 32 * k, 0);
      tile90_dots(d, rows, fault == DESCRIPTOR ? rows - ((uint64_t)(512 >> 4) << 32) : rows, k > 0);
    }
    ptx_wgmma_commit();
    auto release = [&] {
      __syncwarp();
      if (lane == 0) ptx_barrier_arrive(free + n % PLACES);
    };
    if (fault == RELEASE) release();
    if (fault != HOLD) {
      ptx_wgmma_wait<0>();
      tile90_hold(d);
    }
    if (fault != RELEASE) release();
    for (int e = 0; e < 32; e++)
      out[(64 * n + 16 * warp + lane / 4 + e / 2 % 2 * 8) * 64 + e / 4 * 8 + lane % 4 * 2 + e % 2] = d[e];
    if (fault == HOLD) ptx_wgmma_wait<0>();
  }
}

static int failed;
static void must(const char *call, int code) {
  if (code && !failed) printf("%s: error %d %s\n", call, code, mica_last_error()), failed = 1;
}

static float    got[TILES * 64 * 64];
static uint16_t given[(ROWS + 64) * 64];

int main(int argc, char **argv) {
  if (argc < 2) return fputs("cuda_faults_sm90 NAME [fault]\n", stderr), 2;
  int what = 0;
  while (what < FAULTS && strcmp(names[what], argv[1])) what++;
  if (what == FAULTS) return printf("no fault is called %s\n", argv[1]), 2;
  const auto number = [](int row, int column) { return (float)((row * 37 + column * 11) % 15 - 7); };
  for (int i = 0; i < ROWS + 64; i++)
    for (int c = 0; c < 64; c++) {
      const float x = number(i, c);
      uint32_t    u;
      memcpy(&u, &x, 4);
      given[i * 64 + c] = (uint16_t)(u >> 16);
    }
  void       *in = NULL, *out = NULL;
  mica_wire   w = {};
  tile90_rows rows = {};
  must("cudaMalloc", cudaMalloc(&in, sizeof given));
  must("cudaMalloc", cudaMalloc(&out, sizeof got));
  must("cudaMemcpy", cudaMemcpy(in, given, sizeof given, cudaMemcpyHostToDevice));
  w.data = in, w.stride[0] = 64, w.stride[1] = 64, w.stride[2] = 1, w.dtype = MICA_BF16;
  must("maps", tile90_rows_of("rows", w, true, 1, ROWS + 64, 1, 64, &rows));
  if (!failed)
    must("launch", micak_launch("tiles_squared", tiles_squared, dim3(1), dim3(256), PLACES * TILE_BYTES, NULL, rows,
                                (float *)out, argc > 2 ? what : -1));
  must("cudaDeviceSynchronize", cudaDeviceSynchronize());
  must("cudaMemcpy", cudaMemcpy(got, out, sizeof got, cudaMemcpyDeviceToHost));
  for (int i = 0; i < TILES * 64 && !failed; i++)
    for (int j = 0; j < 64 && !failed; j++) {
      float want = 0;
      for (int c = 0; c < 64 && i < ROWS && i / 64 * 64 + j < ROWS; c++) want += number(i, c) * number(i / 64 * 64 + j, c);
      if (got[i * 64 + j] != want) printf("wrong result: (%d, %d) is %g, expected %g\n", i, j, got[i * 64 + j], want), failed = 1;
    }
  if (!failed) puts("ok");
  return failed;
}
