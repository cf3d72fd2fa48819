#include <math.h>
#include <stdlib.h>

#include "common/ref.h"
#include "ridge/ridge_internal.h"

extern const mica_op mica_op_ridge;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "common/ref_solve.inc"
#include "ridge/ridge_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "common/ref_solve.inc"
#include "ridge/ridge_ref.inc"
