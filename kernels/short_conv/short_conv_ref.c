#include "common/ref.h"
#include "short_conv/short_conv.h"

extern const mica_op mica_op_short_conv;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "short_conv/short_conv_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "short_conv/short_conv_ref.inc"
