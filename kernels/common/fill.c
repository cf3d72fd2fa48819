#include "common/fill.h"

#include <string.h>

#include "common/philox.h"
#include "common/ref.h"

void micak_fill(int dtype, void *data, int64_t count, double value) {
  mica_wire w = { .dtype = dtype };
  size_t size = mica_dtype_size(dtype);
  if (dtype == MICA_F32) {
    float f = (float)value, *p = data;
    for (int64_t i = 0; i < count; i++) p[i] = f;
    return;
  }
  for (int64_t i = 0; i < count; i++) micak_put(&w, (char *)data + (size_t)i * size, value);
}

static int is_real(int dtype) { return dtype == MICA_F32 || dtype == MICA_F64 || dtype == MICA_BF16; }

static int64_t get_integer(int dtype, const void *at) {
  return dtype == MICA_I32 ? *(const int32_t *)at : dtype == MICA_I64 ? *(const int64_t *)at : *(const uint8_t *)at;
}

static void put_integer(int dtype, void *at, int64_t value) {
  if (dtype == MICA_I32) *(int32_t *)at = (int32_t)value;
  else if (dtype == MICA_I64) *(int64_t *)at = value;
  else *(uint8_t *)at = (uint8_t)value;
}

mica_status micak_convert(int to_dtype, void *to, int from_dtype, const void *from, int64_t count) {
  size_t to_size = mica_dtype_size(to_dtype), from_size = mica_dtype_size(from_dtype);
  if (!to_size || !from_size || is_real(to_dtype) != is_real(from_dtype))
    return mica_error(MICA_ERR_INVALID, "cannot convert %s to %s", mica_dtype_name(from_dtype),
                      mica_dtype_name(to_dtype));
  if (count <= 0) return MICA_OK;
  if (to_dtype == from_dtype) {
    memmove(to, from, (size_t)count * to_size);
    return MICA_OK;
  }
  mica_wire w = { .dtype = to_dtype }, r = { .dtype = from_dtype };
  const char *in = from;
  char *out = to;
  if (is_real(to_dtype))
    for (int64_t i = 0; i < count; i++, in += from_size, out += to_size) micak_put(&w, out, micak_get(&r, in));
  else
    for (int64_t i = 0; i < count; i++, in += from_size, out += to_size)
      put_integer(to_dtype, out, get_integer(from_dtype, in));
  return MICA_OK;
}

mica_status micak_init_param(int dtype, void *data, int64_t first, int64_t count, mica_init init, uint64_t seed,
                             const char *name) {
  enum { PURPOSE_INIT = 0x696e6974 }; /* "init": apart from every other use of a key */
  if (!is_real(dtype)) return mica_error(MICA_ERR_INVALID, "parameter '%s': no initial values of type %s", name,
                                         mica_dtype_name(dtype));
  if (init.kind == MICA_INIT_ZERO || init.kind == MICA_INIT_ONE || init.kind == MICA_INIT_CONSTANT) {
    micak_fill(dtype, data, count, init.kind == MICA_INIT_CONSTANT ? init.scale : init.kind == MICA_INIT_ONE);
    return MICA_OK;
  }
  if (init.kind != MICA_INIT_NORMAL && init.kind != MICA_INIT_UNIFORM)
    return mica_error(MICA_ERR_INVALID, "parameter '%s': unknown initial values, kind %d", name, (int)init.kind);
  micak_philox_key key = micak_philox_key_of(seed, micak_hash_name(name), 0);
  mica_wire w = { .dtype = dtype };
  size_t size = mica_dtype_size(dtype);
  double value[4];
  int64_t held = -1;
  for (int64_t i = 0; i < count; i++) {
    int64_t e = first + i;
    if (e / 4 != held) {
      held = e / 4;
      if (init.kind == MICA_INIT_NORMAL) {
        micak_philox_normal4(key, (uint64_t)held, PURPOSE_INIT, 0, value);
      } else {
        uint32_t word[4];
        micak_philox_words(key, (uint64_t)held, PURPOSE_INIT, 0, word);
        for (int j = 0; j < 4; j++) value[j] = 2 * micak_uniform32(word[j]) - 1;
      }
    }
    micak_put(&w, (char *)data + (size_t)i * size, (double)(float)(init.scale * value[e % 4]));
  }
  return MICA_OK;
}
