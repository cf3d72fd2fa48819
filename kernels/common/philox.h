/* philox.h: counter-based random numbers, pure functions of (key, counter): no state, no order, any thread.
 *
 * Philox4x32-10 of Random123 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a 64-bit key and
 * a 128-bit counter give four 32-bit words. a draw is addressed by (key, task, purpose, block): the task number takes
 * 64 bits of the counter, `purpose` keeps the streams of one task apart, `block` counts within a stream. */
#ifndef MICAK_PHILOX_H
#define MICAK_PHILOX_H

#include "kernels/common/fixed_math.h"

#include <Random123/philox.h>

typedef struct micak_philox_key { uint32_t word[2]; } micak_philox_key;

/* 64-bit FNV-1a of a name: families and operations enter a key by name, never by their place in a list */
MICAK_BOTH uint64_t micak_hash_name(const char *name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (; *name; name++) h = (h ^ (uint64_t)(unsigned char)*name) * 0x100000001b3ull;
  return h;
}

/* four words of one block */
MICAK_BOTH void micak_philox_words(micak_philox_key key, uint64_t task, uint32_t purpose, uint32_t block,
                                      uint32_t word[4]) {
  philox4x32_ctr_t c = { { (uint32_t)task, (uint32_t)(task >> 32), block, purpose } };
  philox4x32_key_t k = { { key.word[0], key.word[1] } };
  philox4x32_ctr_t r = philox4x32(c, k);
  for (int i = 0; i < 4; i++) word[i] = r.v[i];
}

/* key of (a, b, c), by running Philox over them: any difference in any argument changes the whole key */
MICAK_BOTH micak_philox_key micak_philox_key_of(uint64_t a, uint64_t b, uint64_t c) {
  uint32_t w[4];
  micak_philox_key key = { { (uint32_t)a, (uint32_t)(a >> 32) } };
  micak_philox_words(key, b, 0x6d696361u, 0, w);
  key.word[0] = w[0], key.word[1] = w[1];
  micak_philox_words(key, c, 0x6d696361u, 1, w);
  key.word[0] = w[0], key.word[1] = w[1];
  return key;
}

/* uniform in (0, 1) from 32 bits, at the middle of its cell: never 0 or 1 */
MICAK_BOTH double micak_uniform32(uint32_t word) { return ((double)word + 0.5) * 0x1p-32; }

/* uniform in [0, 1) from 53 bits */
MICAK_BOTH double micak_uniform53(uint32_t high, uint32_t low) {
  return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}

/* two standard normals from two words (Box and Muller 1958, in double; largest |z| is 6.76) */
MICAK_BOTH void micak_normal2(uint32_t radius, uint32_t angle, double out[2]) {
  double r = sqrt(-2.0 * micak_fixed_log(micak_uniform32(radius))), s, c;
  /* the nearest quarter turn is split off in integers, so that the rest is exact and within pi/4 */
  uint32_t quarter = (angle + 0x20000000u) >> 30;
  double rest = (double)(angle - (quarter << 30) + 0x20000000u) - 536870912.0;
  micak_fixed_sincos_small((rest + 0.5) * 1.46291807926715968105e-09, &s, &c); /* 2 pi / 2^32 */
  micak_fixed_quarter(quarter, &s, &c);
  out[0] = r * c, out[1] = r * s;
}

/* four standard normals of one block */
MICAK_BOTH void micak_philox_normal4(micak_philox_key key, uint64_t task, uint32_t purpose, uint32_t block,
                                        double out[4]) {
  uint32_t w[4];
  micak_philox_words(key, task, purpose, block, w);
  micak_normal2(w[0], w[1], out);
  micak_normal2(w[2], w[3], out + 2);
}

/* high 64 bits of a 128-bit product; the low ones go to *low */
static inline uint64_t micak_mul_high(uint64_t a, uint64_t b, uint64_t *low) {
  uint64_t al = a & 0xffffffffu, ah = a >> 32, bl = b & 0xffffffffu, bh = b >> 32;
  uint64_t ll = al * bl, lh = al * bh, hl = ah * bl;
  uint64_t mid = (ll >> 32) + (lh & 0xffffffffu) + (hl & 0xffffffffu);
  *low = (mid << 32) | (ll & 0xffffffffu);
  return ah * bh + (lh >> 32) + (hl >> 32) + (mid >> 32);
}

/* integer in [0, n), n >= 1, without bias (Lemire, "Fast random integer generation in an interval", 2019). a rejected
 * draw, rarer than n / 2^64, moves on to block + 1, block + 2, ...: give each call a purpose of its own, or blocks
 * apart */
static inline uint64_t micak_philox_below(micak_philox_key key, uint64_t task, uint32_t purpose, uint32_t block,
                                          uint64_t n) {
  uint64_t threshold = (0u - n) % n;
  for (;; block++) {
    uint32_t w[4];
    micak_philox_words(key, task, purpose, block, w);
    for (int i = 0; i < 4; i += 2) {
      uint64_t low, high = micak_mul_high(((uint64_t)w[i] << 32) | w[i + 1], n, &low);
      if (low >= threshold) return high;
    }
  }
}

/* a stream read in order: element e of (key, task, purpose) is always the same draw */
typedef struct micak_stream {
  micak_philox_key key;
  uint64_t         task;
  uint32_t         purpose, block, used;
  uint32_t         word[4];
  double           normal[4];
} micak_stream;

static inline micak_stream micak_stream_at(micak_philox_key key, uint64_t task, uint32_t purpose) {
  micak_stream s = { key, task, purpose, 0, 4, { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };
  return s;
}

/* next standard normal; never mix with micak_stream_uniform on one stream */
static inline double micak_stream_normal(micak_stream *s) {
  if (s->used == 4) {
    micak_philox_normal4(s->key, s->task, s->purpose, s->block++, s->normal);
    s->used = 0;
  }
  return s->normal[s->used++];
}

/* next uniform in [0, 1), 53 bits */
static inline double micak_stream_uniform(micak_stream *s) {
  if (s->used == 4) {
    micak_philox_words(s->key, s->task, s->purpose, s->block++, s->word);
    s->used = 0;
  }
  double u = micak_uniform53(s->word[s->used], s->word[s->used + 1]);
  s->used += 2;
  return u;
}

#endif
