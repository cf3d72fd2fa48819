#include "host/task/families.h"

/* the one list: a new family is its file and a line here */
#define FAMILIES(X) X(linear_regression) X(sinusoid) X(few_shot_sinusoid) X(categorical) X(piecewise) X(bytes) \
  X(few_shot_images) X(few_shot_table) X(associative_retrieval) X(remapped_labels)

#define DECLARE(name) extern const mica_family micah_family_##name;
FAMILIES(DECLARE)
#undef DECLARE

static const mica_family *const families[] = {
#define ROW(name) &micah_family_##name,
  FAMILIES(ROW)
#undef ROW
};

const mica_family *micah_builtin_family(int32_t index) {
  return index >= 0 && index < MICA_COUNT(families) ? families[index] : NULL;
}

mica_status micah_register_families(mica_context *context) {
  for (int32_t i = 0; i < MICA_COUNT(families); i++) {
    mica_status status = mica_register_family(context, families[i]);
    if (status < 0) return status;
  }
  return MICA_OK;
}
