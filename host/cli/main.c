#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/source.h"
#include "common/names.h"
#include "mica/version.h"

static const micac_command *const commands[] = {
  &micac_train, &micac_eval, &micac_predict, &micac_report, &micac_tasks, &micac_op, &micac_grad, &micac_info,
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const char *command_name(const void *list, int index) {
  (void)list;
  return index < N_COMMANDS ? commands[index]->name : NULL;
}

static void print_help(FILE *out) {
  fprintf(out, "mica %d.%d.%d meta-trains in-context learners\n\nusage: mica COMMAND [arguments]\n\n", MICA_VERSION_MAJOR,
          MICA_VERSION_MINOR, MICA_VERSION_PATCH);
  for (int i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
  fprintf(out, "\nexamples:\n"
               "  mica train docs/recipes/linear_regression.yaml --out runs/linreg\n"
               "  mica report runs/linreg\n"
               "  mica eval runs/linreg --json\n"
               "\n`mica COMMAND --help` tells more. exit codes: 0 done, 1 internal or device error, 2 command line,\n"
               "3 configuration, 4 file, 5 not supported, 6 not finite, 7 out of memory, 9 stopped on request\n");
}

int micac_exit_code(mica_status status) {
  static const struct { mica_status status; int code; } codes[] = {
    { MICA_ERR_INVALID, 2 },     { MICA_ERR_UNSUPPORTED, 5 }, { MICA_ERR_MEMORY, 7 }, { MICA_ERR_IO, 4 },
    { MICA_ERR_FORMAT, 4 },      { MICA_ERR_CONFIG, 3 },      { MICA_ERR_NOT_FOUND, 3 }, { MICA_ERR_SHAPE, 3 },
    { MICA_ERR_NUMERIC, 6 },     { MICA_ERR_DEVICE, 1 },      { MICA_ERR_INTERRUPTED, 9 }, { MICA_ERR_STATE, 3 },
    { MICA_ERR_INTERNAL, 1 },
  };
  if (status >= 0) return MICAC_OK;
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (codes[i].status == status) return codes[i].code;
  return 1;
}

int micac_fail(const micac_args *args, mica_status status) {
  fprintf(stderr, "mica %s: %s\n", args->command->name, mica_last_error());
  return micac_exit_code(status);
}

int micac_usage(const micac_args *args, const char *format, ...) {
  va_list list;
  fprintf(stderr, "mica %s: ", args->command->name);
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fprintf(stderr, "\nusage: mica %s %s\n`mica %s --help` tells more\n", args->command->name, args->command->usage,
          args->command->name);
  return MICAC_USAGE;
}

const char *micac_option_at(const micac_args *args, const char *name, int index) {
  for (int i = 0; i < args->n_options; i++)
    if (!strcmp(args->option_names[i], name) && index-- == 0) return args->option_values[i];
  return NULL;
}
const char *micac_option(const micac_args *args, const char *name) {
  const char *value = NULL, *next;
  for (int i = 0; (next = micac_option_at(args, name, i)); i++) value = next;
  return value;
}

static void log_line(void *user, int level, const char *message) {
  static const char *const names[] = { "error", "warning", "note", "debug" };
  (void)user;
  if (level <= MICA_LOG_INFO) fprintf(stderr, "mica: %s: %s\n", names[level], message);
}

mica_context_options micac_context_options(void) {
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.log = log_line;
  return options;
}

mica_status micac_context(int threads, mica_context **out) {
  mica_context_options options = micac_context_options();
  options.threads = threads;
  return mica_context_create(&options, out);
}

/* does the command know this option? 1: flag, 2: takes a value */
static int known_option(const char *options, const char *name, size_t length) {
  for (const char *p = options; *p;) {
    size_t n = strcspn(p, ": ");
    if (n == length && !memcmp(p, name, n)) return p[n] == ':' ? 2 : 1;
    p += n;
    p += strspn(p, ": ");
  }
  return 0;
}

/* 0: parsed; otherwise an exit code + 1 */
static int parse(micac_args *args, int argc, char **argv) {
  for (int i = 0; i < argc; i++) {
    const char *word = argv[i];
    if (word[0] != '-' || word[1] != '-') {
      if (word[0] == '-' && word[1] == 'h' && !word[2]) word = "--help";
      else {
        const char *equals = strchr(word, '=');
        if (args->command->overrides && equals) {
          args->overrides[args->n_overrides] = strdup(word);
          if (!args->overrides[args->n_overrides++]) return 8;
        } else {
          args->positional[args->n_positional++] = word;
        }
        continue;
      }
    }
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t      n = equals ? (size_t)(equals - name) : strlen(name);
    if (n == 4 && !memcmp(name, "help", 4)) {
      printf("usage: mica %s %s\n\n%s\n", args->command->name, args->command->usage, args->command->help);
      return 1;
    }
    int kind = known_option(args->command->options, name, n);
    if (!kind && !args->command->overrides) return 1 + micac_usage(args, "unknown option '%s'", word);
    const char *value = equals ? equals + 1 : "";
    if (kind != 1 && !equals) {
      if (i + 1 >= argc) return 1 + micac_usage(args, "option '%s' needs a value", word);
      value = argv[++i];
    }
    char *copy = strndup(name, n);
    if (!copy) return 8;
    if (kind) {
      args->option_names[args->n_options] = copy;
      args->option_values[args->n_options++] = value;
      if (!strcmp(copy, "json")) args->json = 1;
    } else {
      size_t size = n + strlen(value) + 2;
      char  *text = malloc(size);
      if (text) snprintf(text, size, "%s=%s", copy, value);
      free(copy);
      args->overrides[args->n_overrides] = text;
      if (!args->overrides[args->n_overrides++]) return 8;
    }
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
    print_help(argc < 2 ? stderr : stdout);
    return argc < 2 ? MICAC_USAGE : MICAC_OK;
  }
  if (!strcmp(argv[1], "--version")) {
    printf("mica %d.%d.%d\n", MICA_VERSION_MAJOR, MICA_VERSION_MINOR, MICA_VERSION_PATCH);
    return MICAC_OK;
  }
  micac_args args = { 0 };
  for (int i = 0; i < N_COMMANDS; i++)
    if (!strcmp(commands[i]->name, argv[1])) args.command = commands[i];
  if (!args.command) {
    const char *near = micak_nearest(argv[1], command_name, NULL);
    fprintf(stderr, "mica: no command '%s'%s%s%s; see mica --help\n", argv[1], near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "");
    return MICAC_USAGE;
  }
  size_t words = (size_t)argc;
  args.positional = calloc(words, sizeof *args.positional);
  args.overrides = calloc(words, sizeof *args.overrides);
  args.option_names = calloc(words, sizeof *args.option_names);
  args.option_values = calloc(words, sizeof *args.option_values);
  int code = 7;
  if (args.positional && args.overrides && args.option_names && args.option_values) {
    code = parse(&args, argc - 2, argv + 2);
    code = code ? code - 1 : args.command->run(&args);
  }
  for (int i = 0; i < args.n_overrides; i++) free(args.overrides[i]);
  for (int i = 0; i < args.n_options; i++) free((void *)(uintptr_t)args.option_names[i]);
  free(args.positional);
  free(args.overrides);
  free(args.option_names);
  free(args.option_values);
  /* a full disk or a closed pipe is an error, not a success */
  if (fflush(stdout) != 0 && code == MICAC_OK) {
    fprintf(stderr, "mica %s: standard output could not be written\n", argv[1]);
    code = 4;
  }
  return code;
}
