#include "common/ref.h"
#include "conv/conv.h"

extern const mica_op mica_op_conv2d;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "conv/conv2d_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "conv/conv2d_ref.inc"
