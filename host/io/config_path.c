/* where the paths of a configuration lead. */
#include <stdlib.h>
#include <string.h>

#include "host/io/config_tree.h"
#include "host/io/file.h"

/* folder/name when that exists, else NULL with the name added to `tried` */
static char *attempt(const char *folder, const char *name, micah_text *tried) {
  char *path = micah_path_join(folder, name);
  if (!path) {
    tried->failed = 1;
    return NULL;
  }
  if (micah_path_kind(path) != MICAH_PATH_NONE) return path;
  micah_text_format(tried, "%s'%s'", tried->size ? ", " : "", path);
  free(path);
  return NULL;
}

static char *find_data(const micah_section *node, const char *name, micah_text *tried) {
  const char *given = getenv("MICA_DATA");
  if (given && *given) return attempt(given, name, tried);
  char *beside = micah_path_join(node->config->folder, "../../../shared/data");
  char *found = NULL;
  if (!beside) tried->failed = 1;
  else found = attempt(beside, name, tried);
  free(beside);
  return found ? found : attempt("../shared/data", name, tried);
}

mica_status micah_config_resolve(micah_section *node) {
  const char *text = node->text;
  if (node->resolved) return MICA_OK;
  micah_text tried = { 0 };
  int data = !strncmp(text, "data:", 5);
  char *found = NULL;
  /* a path typed on the command line is sought first where it was typed */
  if (!data && node->source == MICAH_FROM_COMMAND_LINE) found = attempt("", text, &tried);
  if (!found) found = data ? find_data(node, text + 5, &tried) : attempt(node->config->folder, text, &tried);
  mica_status status = MICA_OK;
  if (found) {
    char *absolute = micah_path_absolute(found);
    if (absolute) node->resolved = micah_config_keep(node->config, absolute, strlen(absolute));
    if (!node->resolved) status = mica_error(MICA_ERR_MEMORY, "%s: out of memory", node->config->name);
    free(absolute);
    free(found);
  } else if (tried.failed) {
    status = mica_error(MICA_ERR_MEMORY, "%s: out of memory", node->config->name);
  } else {
    char path[300], shown[200];
    micah_node_path(node, NULL, path, sizeof path);
    micah_quote(text, strlen(text), shown, sizeof shown);
    status = micah_node_error(node, MICA_ERR_CONFIG, "%s: no such file or folder '%s' (tried %s)%s", path, shown,
                              tried.data, data ? "; set MICA_DATA to the folder that holds the data" : "");
  }
  micah_text_free(&tried);
  return status;
}
