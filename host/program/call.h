/* call.h (internal): appending a subprogram's entries to a program */
#ifndef MICAH_PROGRAM_CALL_H
#define MICAH_PROGRAM_CALL_H

#include "program/program.h"

typedef struct micah_replay {
  mica_program       *program;
  const mica_program *sub;
  const char         *name;
  int32_t             level;   /* the axis that the sub's tasks are */
  int32_t            *values;  /* [sub values] their values outside, -1: not yet */
  int32_t            *axes;    /* [sub axes] */
} micah_replay;

/* bind inputs and parameters, map axes, make the parameters that are not bound */
mica_status micah_replay_start(micah_replay *replay, int32_t n, const mica_bind *binds);
mica_value  micah_replay_value(micah_replay *replay, mica_value inner);
int32_t     micah_replay_axis(const micah_replay *replay, int32_t axis);

/* an input or parameter of `sub` by name */
mica_value micah_find_bindable(mica_program *program, const char *name, const mica_program *sub, const char *port);
/* record results by name; the value that stands for all of them */
mica_value micah_add_call(mica_program *program, const char *path, int32_t n, const micah_output *outputs);
char      *micah_join(mica_program *program, const char *a, const char *b);
/* may the program still be built? */
mica_status micah_open(mica_program *program);

#endif
