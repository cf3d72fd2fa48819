/* cli.h: what the subcommands of `mica` share: arguments, exit codes, errors. */
#ifndef MICA_HOST_CLI_CLI_H
#define MICA_HOST_CLI_CLI_H

#include <stdio.h>

#include "mica/context.h"

/* one subcommand; run returns an exit code */
typedef struct micac_args    micac_args;
typedef struct micac_command {
  const char *name, *summary;
  const char *usage;             /* after "mica NAME " */
  const char *help;              /* options and examples */
  const char *options;           /* "out: resume: json quiet" - a colon takes a value */
  int         overrides;         /* 1: other --KEY VALUE and KEY=VALUE are configuration overrides */
  int       (*run)(micac_args *args);
} micac_command;

extern const micac_command micac_train, micac_eval, micac_predict, micac_op, micac_grad, micac_report, micac_tasks,
    micac_info;

/* parsed arguments. strings are borrowed from argv, but for overrides, which are owned. */
struct micac_args {
  const micac_command *command;
  const char         **positional;
  char               **overrides; /* "key=value" */
  const char         **option_names, **option_values;
  int                  n_positional, n_overrides, n_options;
  int                  json;
};

/* value of an option, NULL when not given ("" for one without a value). the n-th of a repeated one by *_at. */
const char *micac_option(const micac_args *args, const char *name);
const char *micac_option_at(const micac_args *args, const char *name, int index);

/* exit codes: 0 success, 1 internal or device error, 2 wrong command line, 3 wrong configuration or name, 4 a file could
 * not be read, written or understood, 5 not supported, 6 not finite, 7 out of memory, 9 stopped on request */
enum { MICAC_OK = 0, MICAC_USAGE = 2 };
int micac_exit_code(mica_status status);

/* print the last error as "mica NAME: text" and give the exit code. */
int micac_fail(const micac_args *args, mica_status status);
/* a wrong command line: print the text and how to get help. */
int micac_usage(const micac_args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `mica info CONFIG`; what to say of an inner loop's path, "" for none */
int         micac_job_info(micac_args *args);
const char *micac_inner(const char *path);

/* a context that logs warnings to stderr, with `threads` workers (0: all cores) */
mica_status micac_context(int threads, mica_context **out);

#endif
