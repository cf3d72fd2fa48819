#include "host/io/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/config_tree.h"
#include "host/io/file.h"

/* ---- reading ---- */

mica_status micah_config_parse(const char *name, const char *text, size_t size, micah_config **out) {
  *out = NULL;
  micah_config *config = calloc(1, sizeof *config);
  if (config) {
    config->name = micah_copy(name, strlen(name));
    config->folder = micah_path_folder(name);
  }
  if (!config || !config->name || !config->folder) {
    micah_config_destroy(config);
    return mica_error(MICA_ERR_MEMORY, "%s: out of memory", name);
  }
  mica_status status = MICA_OK;
  if (size > MICAH_CONFIG_BYTES)
    status = mica_error(MICA_ERR_CONFIG, "%s: %zu bytes; a configuration has at most %d", name, size,
                        (int)MICAH_CONFIG_BYTES);
  if (size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) {
    text += 3;
    size -= 3;
  }
  if (status == MICA_OK) status = micah_yaml_parse(config, text, size, MICAH_FROM_FILE, &config->root);
  micah_section *root = config->root;
  if (status == MICA_OK && root && root->kind == MICAH_NODE_SCALAR && root->empty) root = NULL;
  if (status == MICA_OK && !root) status = micah_node_make(config, NULL, MICAH_NODE_MAP, NULL, &root);
  config->root = root;
  if (status == MICA_OK && root->kind != MICAH_NODE_MAP)
    status = micah_node_error(root, MICA_ERR_CONFIG, "expected 'key: value' lines, got a %s",
                              root->kind == MICAH_NODE_LIST ? "list" : "single value");
  if (status < 0) {
    micah_config_destroy(config);
    return status;
  }
  *out = config;
  return MICA_OK;
}

mica_status micah_config_read(const char *path, micah_config **out) {
  char *text;
  int64_t size;
  mica_status status = micah_file_read(path, MICAH_CONFIG_BYTES, &text, &size);
  *out = NULL;
  if (status < 0) return status;
  status = micah_config_parse(path, text, (size_t)size, out);
  free(text);
  return status;
}

void micah_config_destroy(micah_config *config) {
  if (!config) return;
  for (micah_block *block = config->blocks, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  free(config->name);
  free(config->folder);
  free(config);
}

const char *micah_config_name(const micah_config *config) { return config->name; }
micah_section *micah_config_root(micah_config *config) { return config->root; }

/* ---- overrides ---- */

static mica_status override_error(const micah_config *config, const char *assignment, const char *problem) {
  char shown[200];
  micah_quote(assignment, strlen(assignment), shown, sizeof shown);
  return mica_error(MICA_ERR_CONFIG, "%s: command line '%s': %s", config->name, shown, problem);
}

static int valid_utf8(const char *text) {
  size_t size = strlen(text);
  for (size_t i = 0; i < size;) {
    size_t n = micah_utf8_length(text + i, size - i);
    if (!n) return 0;
    i += n;
  }
  return 1;
}

/* take over the value of a parsed node, staying at its place in the section */
static void become(micah_section *node, const micah_section *value) {
  node->kind = value->kind;
  node->text = value->text;
  node->empty = value->empty;
  node->quoted = value->quoted;
  node->first = value->first;
  node->last = value->last;
  node->count = value->count;
  node->resolved = NULL;
  node->source = MICAH_FROM_COMMAND_LINE;
  for (micah_section *child = node->first; child; child = child->next) child->parent = node;
}

static mica_status override(micah_config *config, const char *key, size_t key_size, const char *value,
                            const char *shown) {
  mica_status status;
  micah_section *node = config->root;
  if (!valid_utf8(shown)) return override_error(config, shown, "is not UTF-8");
  int depth = 0;
  for (size_t at = 0; at <= key_size;) {
    const char *dot = memchr(key + at, '.', key_size - at);
    size_t n = dot ? (size_t)(dot - key) - at : key_size - at;
    if (!n) return override_error(config, shown, "empty name before '=' or between points; write section.key=value");
    if (++depth > MICAH_CONFIG_DEPTH) return override_error(config, shown, "nested too deep");
    if (node->kind != MICAH_NODE_MAP && node->empty) node->kind = MICAH_NODE_MAP;
    if (node->kind != MICAH_NODE_MAP) {
      char problem[160], name[80];
      micah_quote(node->key, strlen(node->key), name, sizeof name);
      snprintf(problem, sizeof problem, "'%s' is a value, not a section with keys", name);
      return override_error(config, shown, problem);
    }
    micah_section *child = micah_node_find(node, key + at, n);
    if (!child) {
      char *name = micah_config_keep(config, key + at, n);
      if (!name) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
      status = micah_node_make(config, node, dot ? MICAH_NODE_MAP : MICAH_NODE_SCALAR, name, &child);
      if (status < 0) return status;
      child->source = MICAH_FROM_COMMAND_LINE;
    }
    node = child;
    if (!dot) break;
    at += n + 1;
  }
  if (node->kind == MICAH_NODE_MAP)
    return override_error(config, shown, "is a section; set one of its keys, as in section.key=value");
  micah_section parsed;
  memset(&parsed, 0, sizeof parsed);
  parsed.kind = MICAH_NODE_SCALAR;
  if (value[0] == '[') {
    micah_section *list;
    status = micah_yaml_parse(config, value, strlen(value), MICAH_FROM_COMMAND_LINE, &list);
    if (status < 0) return status;
    if (!list || list->kind != MICAH_NODE_LIST) return override_error(config, shown, "expected a list [a, b]");
    parsed = *list;
  } else {
    parsed.text = micah_config_keep(config, value, strlen(value));
    if (!parsed.text) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
    parsed.quoted = !*value;
  }
  become(node, &parsed);
  return MICA_OK;
}

mica_status micah_config_override(micah_config *config, const char *assignment) {
  const char *equal = strchr(assignment, '=');
  if (!equal) return override_error(config, assignment, "expected KEY=VALUE, as in steps=100 or model.layers=4");
  return override(config, assignment, (size_t)(equal - assignment), equal + 1, assignment);
}

mica_status micah_config_override_args(micah_config *config, int argc, char *const *argv) {
  for (int i = 0; i < argc; i++) {
    const char *text = argv[i];
    mica_status status;
    if (!strncmp(text, "--", 2) && !strchr(text, '=')) {
      if (!text[2]) return override_error(config, text, "expected --KEY VALUE or KEY=VALUE");
      if (i + 1 >= argc) return override_error(config, text, "no value follows; write --KEY VALUE or KEY=VALUE");
      micah_text both = { 0 };
      micah_text_format(&both, "%s=%s", text + 2, argv[i + 1]);
      status = micah_text_check(&both, config->name);
      if (status == MICA_OK) status = override(config, text + 2, strlen(text + 2), argv[i + 1], both.data);
      micah_text_free(&both);
      i++;
    } else {
      status = micah_config_override(config, strncmp(text, "--", 2) ? text : text + 2);
    }
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* ---- sections and single values ---- */

int micah_config_has(const micah_section *section, const char *key) {
  return micah_node_find(section, key, strlen(key)) != NULL;
}

int micah_config_given(const micah_section *section, const char *key) {
  const micah_section *node = micah_node_find(section, key, strlen(key));
  return node && node->source != MICAH_FROM_DEFAULT;
}

static const char *kind_name(const micah_section *node) {
  static const char *const names[] = { "value", "list", "section" };
  return node->kind == MICAH_NODE_SCALAR && node->empty ? "nothing" : names[node->kind];
}

mica_status micah_config_section(micah_section *parent, const char *key, int required, micah_section **out) {
  *out = NULL;
  micah_section *node = micah_node_find(parent, key, strlen(key));
  if (!node) {
    if (required)
      return micah_config_error(parent, key, MICA_ERR_CONFIG, "missing; add a section '%s:' with its keys below", key);
    char *name = micah_config_keep(parent->config, key, strlen(key));
    if (!name) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", parent->config->name);
    mica_status status = micah_node_make(parent->config, parent, MICAH_NODE_MAP, name, &node);
    if (status < 0) return status;
    node->source = MICAH_FROM_DEFAULT;
  }
  if (node->kind == MICAH_NODE_SCALAR && node->empty) node->kind = MICAH_NODE_MAP;
  if (node->kind != MICAH_NODE_MAP)
    return micah_config_error(parent, key, MICA_ERR_CONFIG, "expected a section with keys, got a %s", kind_name(node));
  *out = node;
  return MICA_OK;
}

/* the key, made with a default where it is missing */
static mica_status ensure(micah_section *section, const char *key, const char *value, micah_section **out) {
  micah_section *node = micah_node_find(section, key, strlen(key));
  if (!node) {
    micah_config *config = section->config;
    char *name = micah_config_keep(config, key, strlen(key));
    char *text = micah_config_keep(config, value, strlen(value));
    if (!name || !text) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
    mica_status status = micah_node_make(config, section, MICAH_NODE_SCALAR, name, &node);
    if (status < 0) return status;
    node->source = MICAH_FROM_DEFAULT;
    node->text = text;
  }
  *out = node;
  return MICA_OK;
}

mica_status micah_config_get_string(micah_section *section, const char *key, const char *fallback, const char **out) {
  micah_section *node = micah_node_find(section, key, strlen(key));
  *out = NULL;
  if (!node && !fallback) return micah_config_error(section, key, MICA_ERR_CONFIG, "missing; add '%s: ...'", key);
  if (!node) {
    mica_status status = ensure(section, key, fallback, &node);
    if (status < 0) return status;
  }
  if (node->kind != MICAH_NODE_SCALAR || node->empty)
    return micah_config_error(section, key, MICA_ERR_CONFIG, "expected text, got %s%s", node->empty ? "" : "a ",
                              kind_name(node));
  *out = node->text;
  return MICA_OK;
}

static mica_status get_list(micah_section *section, const char *key, int paths, const char *const **items,
                            int64_t *count) {
  micah_section *node = micah_node_find(section, key, strlen(key));
  *items = NULL;
  *count = 0;
  if (!node || (node->kind == MICAH_NODE_SCALAR && node->empty)) return MICA_OK;
  if (node->kind == MICAH_NODE_MAP)
    return micah_config_error(section, key, MICA_ERR_CONFIG, "expected a list [a, b], got a section");
  micah_section *first = node->kind == MICAH_NODE_LIST ? node->first : node;
  int64_t n = node->kind == MICAH_NODE_LIST ? node->count : 1, i = 0;
  const char **list = micah_config_alloc(section->config, (size_t)(n + 1) * sizeof *list);
  if (!list) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", section->config->name);
  for (micah_section *item = first; item && i < n; item = item->next, i++) {
    char path[300];
    micah_node_path(item, NULL, path, sizeof path);
    if (item->kind != MICAH_NODE_SCALAR || item->empty)
      return micah_node_error(item, MICA_ERR_CONFIG, "%s: expected text in the list, got %s%s", path,
                              item->empty ? "" : "a ", kind_name(item));
    /* an item of a list from the command line has the source of its list */
    if (paths) {
      mica_status status = micah_config_resolve(item);
      if (status < 0) return status;
    }
    list[i] = paths ? item->resolved : item->text;
  }
  *items = list;
  *count = n;
  return MICA_OK;
}

mica_status micah_config_get_list(micah_section *section, const char *key, const char *const **items, int64_t *count) {
  return get_list(section, key, 0, items, count);
}

mica_status micah_config_get_paths(micah_section *section, const char *key, const char *const **items, int64_t *count) {
  return get_list(section, key, 1, items, count);
}
