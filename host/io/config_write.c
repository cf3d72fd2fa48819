/* the resolved tree as YAML again. */
#include <stdio.h>
#include <string.h>

#include "host/io/config_tree.h"
#include "host/io/file.h"

/* text that YAML reads back as the same plain scalar */
static int plain(const char *text) {
  static const char *const reserved[] = { "null", "Null", "NULL" };
  const char *safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
    if (!strcmp(text, reserved[i])) return 0;
  size_t n = strspn(text, safe), sign = text[0] == '+' || text[0] == '-';
  if (!n || text[n] || !strncmp(text, "...", 3)) return 0;
  /* a minus opens lists unless a number follows */
  return !sign || (text[1] >= '0' && text[1] <= '9') || (text[1] == '.' && text[2] >= '0' && text[2] <= '9');
}

static void quoted(micah_text *out, const char *text) {
  micah_text_add(out, "\"");
  for (const char *p = text; *p; p++) {
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\') micah_text_format(out, "\\%c", c);
    else if (c == '\n') micah_text_add(out, "\\n");
    else if (c == '\t') micah_text_add(out, "\\t");
    else if (c < 32 || c == 127) micah_text_format(out, "\\x%02X", c);
    /* U+0080 to U+009F, U+2028, U+2029 and U+FEFF would not come back as they are */
    else if (c == 0xC2 && (unsigned char)p[1] < 0xA0) micah_text_format(out, "\\x%02X", (unsigned char)*++p);
    else if (c == 0xE2 && (unsigned char)p[1] == 0x80 && ((unsigned char)p[2] & 0xFE) == 0xA8) {
      micah_text_format(out, "\\u20%02X", (unsigned char)p[2] - 0x80);
      p += 2;
    } else if (c == 0xEF && (unsigned char)p[1] == 0xBB && (unsigned char)p[2] == 0xBF) {
      micah_text_add(out, "\\uFEFF");
      p += 2;
    } else micah_text_put(out, p, 1);
  }
  micah_text_add(out, "\"");
}

static void scalar(micah_text *out, const micah_section *node) {
  const char *text = node->resolved ? node->resolved : node->text;
  if (node->empty) micah_text_add(out, "null");
  else if (!node->quoted && plain(text)) micah_text_add(out, text);
  else quoted(out, text);
}

static void key(micah_text *out, const char *name) {
  if (plain(name)) micah_text_add(out, name);
  else quoted(out, name);
  micah_text_add(out, ": ");
}

/* inside lists everything is on one line */
static void flow(micah_text *out, const micah_section *node) {
  if (node->kind == MICAH_NODE_SCALAR) {
    scalar(out, node);
    return;
  }
  micah_text_add(out, node->kind == MICAH_NODE_LIST ? "[" : "{");
  for (const micah_section *child = node->first; child; child = child->next) {
    if (node->kind == MICAH_NODE_MAP) key(out, child->key);
    flow(out, child);
    if (child->next) micah_text_add(out, ", ");
  }
  micah_text_add(out, node->kind == MICAH_NODE_LIST ? "]" : "}");
}

static void block(micah_text *out, const micah_section *map, int indent) {
  for (const micah_section *node = map->first; node; node = node->next) {
    micah_text_format(out, "%*s", indent, "");
    key(out, node->key);
    if (node->kind == MICAH_NODE_MAP && node->first) {
      /* no blank at the line's end */
      out->size--;
      micah_text_add(out, "\n");
      block(out, node, indent + 2);
      continue;
    }
    flow(out, node);
    /* as it was given, where that moves with the data */
    if (node->resolved && !strncmp(node->text, "data:", 5) && plain(node->text + 5)) {
      micah_text_add(out, "  # ");
      micah_text_add(out, node->text);
    }
    micah_text_add(out, "\n");
  }
}

mica_status micah_config_text(const micah_config *config, micah_text *out) {
  if (config->root->first) block(out, config->root, 0);
  else micah_text_add(out, "{}\n");
  return micah_text_check(out, config->name);
}

mica_status micah_config_write(const micah_config *config, const char *path) {
  micah_text text = { 0 };
  micah_text_add(&text, "# every setting of this run, defaults and overrides included\n");
  mica_status status = micah_config_text(config, &text);
  if (status == MICA_OK) status = micah_file_write(path, text.data, (int64_t)text.size);
  micah_text_free(&text);
  return status;
}

static mica_status each(const micah_section *node, mica_status (*visit)(void *, const char *, const char *),
                        void *user) {
  mica_status status = MICA_OK;
  if (node->kind == MICAH_NODE_SCALAR) {
    char path[1024];
    micah_node_path(node, NULL, path, sizeof path);
    return node->empty ? MICA_OK : visit(user, path, node->resolved ? node->resolved : node->text);
  }
  for (const micah_section *child = node->first; child && status == MICA_OK; child = child->next)
    status = each(child, visit, user);
  return status;
}

mica_status micah_config_each(const micah_config *config,
                              mica_status (*visit)(void *user, const char *key, const char *value), void *user) {
  return each(config->root, visit, user);
}
