/* YAML to tree, by libyaml's events, so that each node knows its place and duplicates are seen. */
#include <string.h>
#include <yaml.h>

#include "host/io/config_tree.h"

typedef struct reader {
  micah_config *config;
  yaml_parser_t parser;
  int source;
} reader;

static mica_status place_error(const reader *r, yaml_mark_t mark, const char *format, const char *detail) {
  char text[320];
  /* formats are literals of this file with one %s */
  micah_text message = { 0 };
  const char *p = strstr(format, "%s");
  if (p) {
    micah_text_put(&message, format, (size_t)(p - format));
    micah_text_add(&message, micah_quote(detail, strlen(detail), text, sizeof text));
    micah_text_add(&message, p + 2);
  } else {
    micah_text_add(&message, format);
  }
  const char *shown = message.data ? message.data : format;
  mica_status status;
  if (r->source == MICAH_FROM_COMMAND_LINE)
    status = mica_error(MICA_ERR_CONFIG, "%s: command line: %s", r->config->name, shown);
  else status = mica_error(MICA_ERR_CONFIG, "%s:%zu:%zu: %s", r->config->name, mark.line + 1, mark.column + 1, shown);
  micah_text_free(&message);
  return status;
}

static mica_status syntax_error(const reader *r) {
  const yaml_parser_t *p = &r->parser;
  if (p->error == YAML_MEMORY_ERROR) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", r->config->name);
  yaml_mark_t mark = p->problem_mark;
  micah_text detail = { 0 };
  micah_text_add(&detail, p->problem ? p->problem : "not valid YAML");
  if (p->context) micah_text_format(&detail, " %s", p->context);
  if (p->error == YAML_READER_ERROR) {
    /* the reader knows a byte offset only */
    micah_text_format(&detail, " (byte %zu)", p->problem_offset);
    mark = p->mark;
  }
  mica_status status = place_error(r, mark, "YAML syntax: %s", detail.data ? detail.data : "error");
  micah_text_free(&detail);
  return status;
}

static mica_status next_event(reader *r, yaml_event_t *event) {
  memset(event, 0, sizeof *event);
  if (!yaml_parser_parse(&r->parser, event)) return syntax_error(r);
  return MICA_OK;
}

static int is_null(const yaml_event_t *event) {
  const char *text = (const char *)event->data.scalar.value;
  if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return 0;
  return !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
}

/* what neither keys nor values may have */
static mica_status check_plain(const reader *r, const yaml_event_t *event) {
  const yaml_char_t *anchor = NULL, *tag = NULL;
  if (event->type == YAML_SCALAR_EVENT) {
    anchor = event->data.scalar.anchor;
    tag = event->data.scalar.tag;
  } else if (event->type == YAML_SEQUENCE_START_EVENT) {
    anchor = event->data.sequence_start.anchor;
    tag = event->data.sequence_start.tag;
  } else if (event->type == YAML_MAPPING_START_EVENT) {
    anchor = event->data.mapping_start.anchor;
    tag = event->data.mapping_start.tag;
  } else if (event->type == YAML_ALIAS_EVENT) {
    return place_error(r, event->start_mark, "alias '*%s' is not supported; write the value out",
                       (const char *)event->data.alias.anchor);
  }
  if (anchor)
    return place_error(r, event->start_mark, "anchor '&%s' is not supported; write the value out",
                       (const char *)anchor);
  if (tag) return place_error(r, event->start_mark, "tag '%s' is not supported; remove it", (const char *)tag);
  if (event->type == YAML_SCALAR_EVENT && strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
    return place_error(r, event->start_mark, "a zero byte in text is not supported", "");
  return MICA_OK;
}

/* a node from its first event, which is consumed here */
static mica_status read_node(reader *r, yaml_event_t *event, micah_section *parent, const char *key,
                             yaml_mark_t key_mark, int depth, micah_section **out) {
  micah_section *node = NULL;
  mica_status status = check_plain(r, event);
  yaml_mark_t mark = event->start_mark;
  int type = event->type;
  if (status == MICA_OK && depth > MICAH_CONFIG_DEPTH)
    status = place_error(r, mark, "nested too deep; at most 16 levels are read", "");
  int kind = type == YAML_MAPPING_START_EVENT    ? MICAH_NODE_MAP
             : type == YAML_SEQUENCE_START_EVENT ? MICAH_NODE_LIST
                                                 : MICAH_NODE_SCALAR;
  if (status == MICA_OK) status = micah_node_make(r->config, parent, kind, key, &node);
  if (status == MICA_OK) {
    node->source = r->source;
    node->line = (int64_t)mark.line + 1;
    node->column = (int64_t)mark.column + 1;
    node->key_line = (int64_t)key_mark.line + 1;
    node->key_column = (int64_t)key_mark.column + 1;
    if (kind == MICAH_NODE_SCALAR) {
      node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
      node->empty = is_null(event);
      node->text =
          node->empty ? ""
                      : micah_config_keep(r->config, (const char *)event->data.scalar.value, event->data.scalar.length);
      if (!node->text) status = mica_error(MICA_ERR_MEMORY, "%s: out of memory", r->config->name);
    }
  }
  yaml_event_delete(event);
  if (status < 0) return status;
  if (out) *out = node;
  if (kind == MICAH_NODE_SCALAR) return MICA_OK;
  for (;;) {
    yaml_event_t item;
    if ((status = next_event(r, &item)) < 0) return status;
    if (item.type == YAML_MAPPING_END_EVENT || item.type == YAML_SEQUENCE_END_EVENT) {
      yaml_event_delete(&item);
      return MICA_OK;
    }
    if (kind == MICAH_NODE_LIST) {
      if ((status = read_node(r, &item, node, NULL, item.start_mark, depth + 1, NULL)) < 0) return status;
      continue;
    }
    status = check_plain(r, &item);
    if (status == MICA_OK && item.type != YAML_SCALAR_EVENT)
      status = place_error(r, item.start_mark, "a key must be a name, not a list or map", "");
    const char *name = item.type == YAML_SCALAR_EVENT ? (const char *)item.data.scalar.value : "";
    if (status == MICA_OK && !*name) status = place_error(r, item.start_mark, "empty key; write 'key: value'", "");
    if (status == MICA_OK && !strcmp(name, "<<"))
      status = place_error(r, item.start_mark, "merge key '<<' is not supported; write the values out", "");
    if (status == MICA_OK && strchr(name, '.'))
      status = place_error(r, item.start_mark, "key '%s' has a point; write nested sections", name);
    if (status == MICA_OK) {
      const micah_section *old = micah_node_find(node, name, strlen(name));
      if (old) {
        char detail[192], shown[96];
        micah_quote(name, strlen(name), shown, sizeof shown);
        snprintf(detail, sizeof detail, "%s' (first on line %lld)", shown, (long long)old->key_line);
        status = place_error(r, item.start_mark, "duplicate key '%s; remove one", detail);
      }
    }
    char *kept = NULL;
    if (status == MICA_OK && !(kept = micah_config_keep(r->config, name, strlen(name))))
      status = mica_error(MICA_ERR_MEMORY, "%s: out of memory", r->config->name);
    yaml_mark_t at = item.start_mark;
    yaml_event_delete(&item);
    if (status < 0) return status;
    yaml_event_t value;
    if ((status = next_event(r, &value)) < 0) return status;
    if ((status = read_node(r, &value, node, kept, at, depth + 1, NULL)) < 0) return status;
  }
}

static mica_status read_stream(reader *r, micah_section **out) {
  yaml_event_t event;
  mica_status status;
  int documents = 0;
  *out = NULL;
  for (;;) {
    if ((status = next_event(r, &event)) < 0) return status;
    int type = event.type;
    if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_END_EVENT) {
      yaml_event_delete(&event);
    } else if (type == YAML_STREAM_END_EVENT) {
      yaml_event_delete(&event);
      return MICA_OK;
    } else if (type == YAML_DOCUMENT_START_EVENT) {
      yaml_mark_t mark = event.start_mark;
      yaml_event_delete(&event);
      if (documents++) return place_error(r, mark, "a second document; a configuration is one document", "");
    } else {
      yaml_mark_t mark = event.start_mark;
      if ((status = read_node(r, &event, NULL, NULL, mark, 0, out)) < 0) return status;
    }
  }
}

mica_status micah_yaml_parse(micah_config *config, const char *text, size_t size, int source, micah_section **out) {
  reader r;
  memset(&r, 0, sizeof r);
  r.config = config;
  r.source = source;
  *out = NULL;
  if (!yaml_parser_initialize(&r.parser)) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", config->name);
  yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text ? text : ""), size);
  mica_status status = read_stream(&r, out);
  yaml_parser_delete(&r.parser);
  return status;
}
