/* key tables: from text to the fields of a struct, with every check. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "host/io/config_tree.h"

static const char *const type_names[] = { "an integer", "a number", "yes or no", "text", "a path", "a choice" };

static int ranged(const mica_key *key) {
  return (key->type == MICA_KEY_INT || key->type == MICA_KEY_REAL) && (key->lo != 0 || key->hi != 0);
}

/* what a key takes, for messages: "an integer from 1 to 64" */
static void expected(const mica_key *key, char *out, size_t size) {
  micah_text text = { 0 };
  if (key->type == MICA_KEY_CHOICE) {
    micah_text_add(&text, "one of ");
    for (const char *p = key->choices ? key->choices : ""; *p; p++)
      micah_text_put(&text, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
  } else {
    micah_text_add(&text, key->type >= 0 && key->type < MICA_KEY_CHOICE ? type_names[key->type] : "a value");
  }
  if (ranged(key)) {
    int top = key->hi >= 9e15, bottom = key->lo <= -9e15;
    if (!bottom) micah_text_add(&text, top ? " of at least " : " from ");
    if (!bottom) micah_text_number(&text, key->lo, 16);
    if (!top) micah_text_add(&text, bottom ? " of at most " : " to ");
    if (!top) micah_text_number(&text, key->hi, 16);
  }
  snprintf(out, size, "%s", text.data ? text.data : "a value");
  micah_text_free(&text);
}

static int parse_bool(const char *text, int32_t *out) {
  static const struct {
    const char *word;
    int32_t value;
  } words[] = {
    { "yes", 1 }, { "true", 1 }, { "on", 1 }, { "no", 0 }, { "false", 0 }, { "off", 0 },
  };
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    const char *w = words[i].word;
    size_t n = 0;
    while (w[n] && (text[n] == w[n] || text[n] == w[n] - 32)) n++;
    if (!w[n] && !text[n]) {
      *out = words[i].value;
      return 1;
    }
  }
  return 0;
}

/* a list of names for micak_nearest: one after another, an empty one ends it */
static const char *packed_name(const void *list, int index) {
  const char *p = list;
  while (index-- && *p) p += strlen(p) + 1;
  return *p ? p : NULL;
}

/* ", did you mean 'x'?" or nothing */
static void suggest(const char *wanted, const micah_text *packed, char *out, size_t size) {
  const char *best = packed->data && !packed->failed ? micak_nearest(wanted, packed_name, packed->data) : NULL;
  char shown[80];
  out[0] = 0;
  if (best) snprintf(out, size, "; did you mean '%s'?", micah_quote(best, strlen(best), shown, sizeof shown));
}

static mica_status bad_value(const micah_section *node, const mica_key *key, const char *hint) {
  char path[300], want[300], shown[120];
  micah_node_path(node, NULL, path, sizeof path);
  expected(key, want, sizeof want);
  if (node->kind == MICAH_NODE_MAP)
    return micah_node_error(node, MICA_ERR_CONFIG, "%s: expected %s, got a section", path, want);
  if (node->kind == MICAH_NODE_LIST)
    return micah_node_error(node, MICA_ERR_CONFIG, "%s: expected %s, got a list", path, want);
  if (node->empty) return micah_node_error(node, MICA_ERR_CONFIG, "%s: expected %s, got nothing", path, want);
  micah_quote(node->text, strlen(node->text), shown, sizeof shown);
  return micah_node_error(node, MICA_ERR_CONFIG, "%s: expected %s, got '%s'%s", path, want, shown, hint);
}

static mica_status fill_choice(const micah_section *node, const mica_key *key, void *field) {
  int64_t index = key->choices ? micak_choice(key->choices, node->text, strlen(node->text)) : -1;
  if (index < 0) {
    micah_text packed = { 0 };
    char hint[128];
    for (const char *p = key->choices ? key->choices : ""; *p; p++) micah_text_put(&packed, *p == '|' ? "" : p, 1);
    micah_text_put(&packed, "", 1);
    suggest(node->text, &packed, hint, sizeof hint);
    micah_text_free(&packed);
    return bad_value(node, key, hint);
  }
  memcpy(field, &index, sizeof index);
  return MICA_OK;
}

/* text of a node into a field, by the key's type */
static mica_status fill_value(micah_section *node, const mica_key *key, void *field) {
  const char *text = node->text;
  size_t size = strlen(text);
  int64_t whole;
  double real;
  int32_t flag;
  if (node->kind != MICAH_NODE_SCALAR || node->empty) return bad_value(node, key, "");
  int bare = key->type == MICA_KEY_INT || key->type == MICA_KEY_REAL || key->type == MICA_KEY_BOOL;
  if (bare && node->quoted && size) return bad_value(node, key, " in quotes; remove the quotes");
  switch (key->type) {
  case MICA_KEY_INT:
    if (!micah_parse_int(text, size, &whole)) return bad_value(node, key, "");
    if (ranged(key) && !((double)whole >= key->lo && (double)whole <= key->hi)) return bad_value(node, key, "");
    memcpy(field, &whole, sizeof whole);
    return MICA_OK;
  case MICA_KEY_REAL:
    if (!micah_parse_real(text, size, &real)) return bad_value(node, key, "");
    if (!isfinite(real)) return bad_value(node, key, ", which is too large for a double");
    if (ranged(key) && !(real >= key->lo && real <= key->hi)) return bad_value(node, key, "");
    memcpy(field, &real, sizeof real);
    return MICA_OK;
  case MICA_KEY_BOOL:
    if (!parse_bool(text, &flag)) return bad_value(node, key, "");
    memcpy(field, &flag, sizeof flag);
    return MICA_OK;
  case MICA_KEY_STRING:
    memcpy(field, &text, sizeof text);
    return MICA_OK;
  case MICA_KEY_PATH:
    /* an empty path is one that is not set */
    if (size) {
      mica_status status = micah_config_resolve(node);
      if (status < 0) return status;
      text = node->resolved;
    }
    memcpy(field, &text, sizeof text);
    return MICA_OK;
  case MICA_KEY_CHOICE:
    return fill_choice(node, key, field);
  default:
    return mica_error(MICA_ERR_INTERNAL, "key table: '%s' has the unknown type %d", key->name, (int)key->type);
  }
}

static int known(const char *name, const mica_key *keys, int32_t n_keys, const char *const *other, int32_t n_other) {
  for (int32_t i = 0; i < n_keys; i++)
    if (!strcmp(keys[i].name, name)) return 1;
  for (int32_t i = 0; i < n_other; i++)
    if (!strcmp(other[i], name)) return 1;
  return 0;
}

mica_status micah_config_check_keys(const micah_section *section, const mica_key *keys, int32_t n_keys,
                                    const char *const *other, int32_t n_other) {
  for (const micah_section *node = section->first; node; node = node->next) {
    if (known(node->key, keys, n_keys, other, n_other)) continue;
    micah_text names = { 0 };
    char path[300], hint[128];
    for (int32_t i = 0; i < n_keys; i++) micah_text_put(&names, keys[i].name, strlen(keys[i].name) + 1);
    for (int32_t i = 0; i < n_other; i++) micah_text_put(&names, other[i], strlen(other[i]) + 1);
    micah_text_put(&names, "", 1);
    suggest(node->key, &names, hint, sizeof hint);
    if (!hint[0] && names.size > 1 && !names.failed) {
      /* nothing near: say what there is */
      size_t at = (size_t)snprintf(hint, sizeof hint, "; valid here: ");
      for (const char *p = names.data; *p; p += strlen(p) + 1) {
        size_t n = strlen(p);
        if (at + n + 8 > sizeof hint) {
          snprintf(hint + at, sizeof hint - at, "...");
          break;
        }
        at += (size_t)snprintf(hint + at, sizeof hint - at, "%s%s", p, p[n + 1] ? ", " : "");
      }
    }
    micah_text_free(&names);
    micah_node_path(node, NULL, path, sizeof path);
    /* the fault is the key, so point at it and not at the value */
    micah_section place = *node;
    place.line = node->key_line;
    place.column = node->key_column;
    return micah_node_error(&place, MICA_ERR_CONFIG, "unknown key '%s'%s", path, hint);
  }
  return MICA_OK;
}

/* a value as its default text says */
static mica_status make_default(micah_section *section, const mica_key *key, micah_section **out) {
  micah_config *config = section->config;
  char *name = micah_config_keep(config, key->name, strlen(key->name));
  char *text = micah_config_keep(config, key->value, strlen(key->value));
  if (!name || !text) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
  mica_status status = micah_node_make(config, section, MICAH_NODE_SCALAR, name, out);
  if (status < 0) return status;
  (*out)->source = MICAH_FROM_DEFAULT;
  (*out)->text = text;
  return MICA_OK;
}

mica_status micah_config_fill(micah_section *section, const mica_key *keys, int32_t n_keys, const char *const *other,
                              int32_t n_other, void *out) {
  mica_status status = micah_config_check_keys(section, keys, n_keys, other, n_other);
  for (int32_t i = 0; i < n_keys && status == MICA_OK; i++) {
    const mica_key *key = &keys[i];
    micah_section *node = micah_node_find(section, key->name, strlen(key->name));
    if (!node && !key->value) {
      char want[300];
      expected(key, want, sizeof want);
      return micah_config_error(section, key->name, MICA_ERR_CONFIG, "missing; add '%s: ...', %s%s%s%s", key->name,
                                want, key->doc ? " (" : "", key->doc ? key->doc : "", key->doc ? ")" : "");
    }
    if (!node) status = make_default(section, key, &node);
    if (status == MICA_OK) status = fill_value(node, key, (char *)out + key->offset);
  }
  return status;
}

mica_status micah_keys_defaults(const mica_key *keys, int32_t n_keys, void *out) {
  static const int64_t zero = 0;
  static const char *nothing = "";
  for (int32_t i = 0; i < n_keys; i++) {
    const mica_key *key = &keys[i];
    void *field = (char *)out + key->offset;
    /* strings and paths of a table live as long as the table */
    micah_section node = { .kind = MICAH_NODE_SCALAR, .source = MICAH_FROM_DEFAULT, .key = key->name };
    micah_config table = { .name = (char[]) { "key table" } };
    node.config = &table;
    node.text = key->value ? key->value : "";
    if (key->type == MICA_KEY_STRING || key->type == MICA_KEY_PATH) {
      const char *text = key->value ? key->value : nothing;
      memcpy(field, &text, sizeof text);
    } else if (!key->value) {
      memcpy(field, &zero, key->type == MICA_KEY_BOOL ? sizeof(int32_t) : sizeof(int64_t));
    } else {
      mica_status status = fill_value(&node, key, field);
      if (status < 0) return status;
    }
  }
  return MICA_OK;
}
