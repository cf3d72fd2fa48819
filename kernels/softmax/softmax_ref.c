#include <math.h>

#include "common/ref.h"
#include "softmax/softmax.h"

extern const mica_op mica_op_softmax, mica_op_log_softmax;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "softmax/softmax_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "softmax/softmax_ref.inc"
