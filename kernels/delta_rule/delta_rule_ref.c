#include <stdlib.h>
#include <string.h>

#include "common/ref.h"
#include "delta_rule/delta_rule_internal.h"

extern const mica_op mica_op_delta_rule;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "common/memory_ref.inc"
#include "delta_rule/delta_rule_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "common/memory_ref.inc"
#include "delta_rule/delta_rule_ref.inc"
