#include "common/ref.h"
#include "embedding/embedding_internal.h"

extern const mica_op mica_op_embedding, mica_op_position_add;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "embedding/embedding_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "embedding/embedding_ref.inc"
