/* updates.h (internal): update rules as pieces of programs; a new one is a function and a line in the table. */
#ifndef MICAH_ADAPT_UPDATES_H
#define MICAH_ADAPT_UPDATES_H

#include "mica/adapt.h"

enum { MICAH_STATES = 4 };

/* a state that the rule carries from step to step */
typedef struct micah_state {
  const char *name;
  double      start;
  int32_t     scalar;            /* one number a task for all parameters, instead of one for each element */
} micah_state;

typedef struct micah_update {
  const char *name;
  int32_t     n_states;
  micah_state states[MICAH_STATES];
  /* states of the whole task: once a step, before the parameters. in, out: (n_states), -1 where not scalar */
  mica_status (*task)(mica_program *p, const mica_step_options *o, const mica_value *in, mica_value *out);
  /* one parameter: theta' from theta, the gradient and the rate; in, out as above, -1 where scalar; `task`: new scalar
   * states */
  mica_value (*build)(mica_program *p, const char *path, const mica_step_options *o, mica_value theta, mica_value g,
                      mica_value rate, const mica_value *in, const mica_value *task, mica_value *out);
} micah_update;

/* NULL: no such name; the message lists them */
const micah_update *micah_find_update(const char *name);

#endif
