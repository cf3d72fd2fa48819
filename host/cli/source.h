/* source.h: what the commands that read a configuration or a run folder share. */
#ifndef MICA_HOST_CLI_SOURCE_H
#define MICA_HOST_CLI_SOURCE_H

#include "cli/cli.h"
#include "mica/train.h"

/* options of a context that logs to stderr */
mica_context_options micac_context_options(void);

/* a run folder when the path is a folder, else a configuration file */
mica_source micac_source(const micac_args *args, const char *path, const mica_context_options *context);

/* tables by position: what a row stands for, "7" or "27-52". up to twenty rows; their spans follow each other. */
int64_t micac_span(int64_t positions);
void    micac_span_name(int64_t first, int64_t end, char text[48]);

/* whole number of an option; 0: fine. otherwise an exit code was printed. */
int micac_option_int(const micac_args *args, const char *name, int64_t fallback, int64_t *out);

#endif
