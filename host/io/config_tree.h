/* config_tree.h: the parsed tree behind config.h; private to host/io/config*.c. */
#ifndef MICAH_IO_CONFIG_TREE_H
#define MICAH_IO_CONFIG_TREE_H

#include "host/io/config.h"

enum { MICAH_NODE_SCALAR, MICAH_NODE_LIST, MICAH_NODE_MAP };
enum { MICAH_FROM_FILE, MICAH_FROM_COMMAND_LINE, MICAH_FROM_DEFAULT };
enum { MICAH_CONFIG_DEPTH = 16, MICAH_CONFIG_NODES = 2000, MICAH_CONFIG_BYTES = 1 << 20 };

struct micah_section {
  int             kind, source;
  int             quoted;          /* scalar in quotes: text, never a number */
  const char     *key;             /* NULL in lists and at the root */
  const char     *text;            /* scalar; "" with empty set when the value is missing or null */
  int             empty;
  const char     *resolved;        /* scalar of a path key: the absolute path */
  int64_t         line, column;    /* of the value, from 1 */
  int64_t         key_line, key_column;
  micah_section  *parent, *first, *last, *next;
  int64_t         count;           /* children */
  micah_config   *config;
};

typedef struct micah_block {
  struct micah_block *next;
  size_t              used, size;
} micah_block;

struct micah_config {
  char          *name, *folder;    /* file as given; its folder */
  micah_section *root;
  micah_block   *blocks;           /* arena of nodes and strings */
  int64_t        nodes;
};

/* zeroed memory that lives as long as the config; NULL when out of memory */
void *micah_config_alloc(micah_config *config, size_t bytes);
char *micah_config_keep(micah_config *config, const char *text, size_t size);

/* a new node, appended to parent (NULL: none); error when out of memory or beyond MICAH_CONFIG_NODES */
mica_status micah_node_make(micah_config *config, micah_section *parent, int kind, const char *key,
                            micah_section **out);
micah_section *micah_node_find(const micah_section *map, const char *key, size_t length);
/* dotted path of a node, "model.layers"; `key` (may be NULL) is a child that need not exist */
void micah_node_path(const micah_section *node, const char *key, char *out, size_t size);
/* error at a node: "FILE:LINE:COL: ..." or "FILE: command line: ..." */
mica_status micah_node_error(const micah_section *node, mica_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* config_yaml.c: parse YAML text into a tree of its own; *out is NULL where there is none */
mica_status micah_yaml_parse(micah_config *config, const char *text, size_t size, int source, micah_section **out);

/* config_path.c: turn a path as written into one that can be opened; *out is kept by the config */
mica_status micah_config_resolve(micah_section *node);

#endif
