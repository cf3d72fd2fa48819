/* memory, nodes and places of a configuration. */
#include "host/io/config_tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *micah_config_alloc(micah_config *config, size_t bytes) {
  const size_t head = (sizeof(micah_block) + 15) / 16 * 16;
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t need = (bytes + 15) / 16 * 16;
  micah_block *block = config->blocks;
  if (!block || block->size - block->used < need) {
    size_t size = need > 4096 ? need : 4096;
    block = malloc(head + size);
    if (!block) return NULL;
    block->next = config->blocks;
    block->used = 0;
    block->size = size;
    config->blocks = block;
  }
  void *memory = (char *)block + head + block->used;
  block->used += need;
  memset(memory, 0, need);
  return memory;
}

char *micah_config_keep(micah_config *config, const char *text, size_t size) {
  if (size == SIZE_MAX) return NULL;
  char *copy = micah_config_alloc(config, size + 1);
  if (copy && size) memcpy(copy, text, size);
  return copy;
}

mica_status micah_node_make(micah_config *config, micah_section *parent, int kind, const char *key,
                            micah_section **out) {
  if (config->nodes >= MICAH_CONFIG_NODES)
    return mica_error(MICA_ERR_CONFIG, "%s: more than %d values; a configuration is smaller", config->name,
                      (int)MICAH_CONFIG_NODES);
  micah_section *node = micah_config_alloc(config, sizeof *node);
  if (!node) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
  config->nodes++;
  node->kind = kind;
  node->key = key;
  node->text = "";
  node->config = config;
  node->parent = parent;
  if (parent) {
    if (parent->last) parent->last->next = node;
    else parent->first = node;
    parent->last = node;
    parent->count++;
  }
  *out = node;
  return MICA_OK;
}

micah_section *micah_node_find(const micah_section *map, const char *key, size_t length) {
  if (map->kind != MICAH_NODE_MAP) return NULL;
  for (micah_section *node = map->first; node; node = node->next)
    if (!strncmp(node->key, key, length) && !node->key[length]) return node;
  return NULL;
}

static void path_append(char *out, size_t size, const char *part) {
  size_t at = strlen(out);
  char shown[80];
  micah_quote(part, strlen(part), shown, sizeof shown);
  snprintf(out + at, size - at, "%s%s", at ? "." : "", shown);
}

void micah_node_path(const micah_section *node, const char *key, char *out, size_t size) {
  const micah_section *chain[MICAH_CONFIG_DEPTH * 2 + 2];
  int n = 0;
  out[0] = 0;
  for (; node && n < (int)(sizeof chain / sizeof *chain); node = node->parent) chain[n++] = node;
  while (n--) {
    if (chain[n]->key) {
      path_append(out, size, chain[n]->key);
    } else if (chain[n]->parent) {
      char number[24];
      int64_t index = 0;
      for (const micah_section *p = chain[n]->parent->first; p && p != chain[n]; p = p->next) index++;
      snprintf(number, sizeof number, "%lld", (long long)index);
      path_append(out, size, number);
    }
  }
  if (key) path_append(out, size, key);
}

/* "FILE:LINE:COL" or "FILE: command line" */
static void place(const micah_section *node, char *out, size_t size) {
  if (node->source == MICAH_FROM_FILE && node->line)
    snprintf(out, size, "%s:%lld:%lld", node->config->name, (long long)node->line, (long long)node->column);
  else if (node->source == MICAH_FROM_COMMAND_LINE) snprintf(out, size, "%s: command line", node->config->name);
  else snprintf(out, size, "%s", node->config->name);
}

mica_status micah_node_error(const micah_section *node, mica_status status, const char *format, ...) {
  char where[600], text[700];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  place(node, where, sizeof where);
  return mica_error(status, "%s: %s", where, text);
}

/* the node a message about (section, key) points at, and its dotted name */
static const micah_section *pointed(const micah_section *section, const char *key, char *path, size_t size) {
  const micah_section *node = key ? micah_node_find(section, key, strlen(key)) : NULL;
  micah_node_path(section, key, path, size);
  return node ? node : section;
}

mica_status micah_config_error(const micah_section *section, const char *key, mica_status status, const char *format,
                               ...) {
  char path[300], text[600];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  const micah_section *node = pointed(section, key, path, sizeof path);
  return micah_node_error(node, status, "%s%s%s", path, path[0] ? ": " : "", text);
}

mica_status micah_config_blame(const micah_section *section, const char *key, mica_status status) {
  const char *name = section->config->name, *message = mica_last_error();
  /* what a configuration asked for is the configuration's fault */
  if (status == MICA_ERR_INVALID || status == MICA_ERR_SHAPE || status == MICA_ERR_NOT_FOUND) status = MICA_ERR_CONFIG;
  size_t n = strlen(name);
  if (!strncmp(message, name, n) && message[n] == ':') return status;
  char path[300], text[700];
  const micah_section *node = pointed(section, key, path, sizeof path);
  snprintf(text, sizeof text, "%s", message);
  return micah_node_error(node, status, "%s%s%s", path, path[0] ? ": " : "", text);
}
