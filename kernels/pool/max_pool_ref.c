#include "common/ref.h"
#include "pool/pool.h"

extern const mica_op mica_op_max_pool;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "pool/max_pool_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "pool/max_pool_ref.inc"
