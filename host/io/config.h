/* config.h: YAML configurations checked by key tables (mica/keys.h).
 *
 * a configuration is a tree of sections (maps), scalars and lists of scalars, each with its line and column; overrides
 * of the command line lie on top. `fill` checks a section against a key table, writes the struct, and makes every
 * default explicit in the tree, so that `write` gives a file that explains the run. every error names the file.
 *
 * paths (MICA_KEY_PATH) must exist. they are relative to the config file's folder; those of the command line are sought
 * in the working directory first. "data:NAME" is NAME under $MICA_DATA, or, where that is not set, under
 * ../../../shared/data from the config file's folder or ../shared/data from the working directory. */
#ifndef MICAH_IO_CONFIG_H
#define MICAH_IO_CONFIG_H

#include <stdarg.h>

#include "host/io/text.h"
#include "mica/keys.h"

typedef struct micah_config  micah_config;
typedef struct micah_section micah_section; /* borrowed from its config */

/* read a file. syntax errors, duplicate keys, anchors, tags and depth beyond 16 are errors with line and column. */
mica_status micah_config_read(const char *path, micah_config **out);
/* the same from memory; `name` stands for the file in messages and its folder is the base of relative paths. */
mica_status micah_config_parse(const char *name, const char *text, size_t size, micah_config **out);
void        micah_config_destroy(micah_config *config);
const char *micah_config_name(const micah_config *config);

/* apply "a.b.c=value"; value is a scalar as it stands, or a flow list "[x, y]". later ones win. keys are checked by
 * fill. MICA_ERR_CONFIG names the config file and the text. */
mica_status micah_config_override(micah_config *config, const char *assignment);
/* apply "a=v", "--a=v" and "--a v" of a command line in order. */
mica_status micah_config_override_args(micah_config *config, int argc, char *const *argv);

micah_section *micah_config_root(micah_config *config);

/* subsection by key. missing: an error where `required`, else made, empty. a scalar or list there is an error. */
mica_status micah_config_section(micah_section *parent, const char *key, int required, micah_section **out);
/* 1 when the section has the key (given, or filled by default) */
int micah_config_has(const micah_section *section, const char *key);
/* 1 when the key came from the file or the command line */
int micah_config_given(const micah_section *section, const char *key);

/* scalar as text; fallback NULL: must be given, else the fallback is made explicit. borrowed from the config. */
mica_status micah_config_get_string(micah_section *section, const char *key, const char *fallback, const char **out);
/* list of scalars as text (one scalar is a list of one; missing is empty). borrowed. */
mica_status micah_config_get_list(micah_section *section, const char *key, const char *const **items, int64_t *count);
/* the same with each item resolved as MICA_KEY_PATH */
mica_status micah_config_get_paths(micah_section *section, const char *key, const char *const **items, int64_t *count);

/* fill a struct from a section: defaults, types, ranges, unknown keys (nearest valid name). keys in `other` (n_other)
 * are valid too and left to the caller: "name", subsections, lists. strings stay with the config. */
mica_status micah_config_fill(micah_section *section, const mica_key *keys, int32_t n_keys, const char *const *other,
                              int32_t n_other, void *out);

/* only the check for unknown keys, against keys and other */
mica_status micah_config_check_keys(const micah_section *section, const mica_key *keys, int32_t n_keys,
                                    const char *const *other, int32_t n_other);

/* an error of the caller's about a key (NULL: the section itself): prefixes file, line, column and dotted key. */
mica_status micah_config_error(const micah_section *section, const char *key, mica_status status, const char *format,
                               ...) __attribute__((format(printf, 4, 5)));
/* put file, line and dotted key before the present mica_last_error(), unless it names the config file already; returns
 * status, with INVALID, SHAPE and NOT_FOUND as ERR_CONFIG: what a configuration asked for is its fault. */
mica_status micah_config_blame(const micah_section *section, const char *key, mica_status status);

/* the whole resolved tree as YAML; reading it again gives the same values. paths are written absolute. */
mica_status micah_config_write(const micah_config *config, const char *path);
mica_status micah_config_text(const micah_config *config, micah_text *out);

/* walk all scalars with dotted keys ("model.layers"), for metadata and reports; list items as "plugins.0". */
mica_status micah_config_each(const micah_config *config, mica_status (*visit)(void *user, const char *key,
                              const char *value), void *user);

/* fill a struct with the defaults of a key table alone; keys without one get 0 or "". */
mica_status micah_keys_defaults(const mica_key *keys, int32_t n_keys, void *out);

#endif
