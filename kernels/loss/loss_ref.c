#include <math.h>

#include "common/ref.h"
#include "loss/loss_internal.h"

extern const mica_op mica_op_mse, mica_op_cross_entropy;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "loss/loss_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "loss/loss_ref.inc"
