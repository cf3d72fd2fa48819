#include <math.h>

#include "batch_norm/batch_norm_pool.h"
#include "common/ref.h"

extern const mica_op mica_op_batch_norm_pool;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "batch_norm/batch_norm_pool_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "batch_norm/batch_norm_pool_ref.inc"
