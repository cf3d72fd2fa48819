/* `mica op`: list, describe and run single faces of operations on given arrays. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/op_run.h"
#include "common/names.h"
#include "common/op.h"
#include "host/io/json.h"

static int print_json(const micac_args *args, micah_json *json) {
  const char *text;
  mica_status status = micah_json_finish(json, &text);
  if (status >= 0) printf("%s\n", text);
  micah_json_free(json);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}

/* phases are one face: the same (face, backend, dtype) is listed once */
static int first_phase(const mica_op *op, int i) {
  const mica_kernel *kernel = &op->kernels[i];
  for (int j = 0; j < i; j++)
    if (op->kernels[j].backend == kernel->backend && op->kernels[j].dtype == kernel->dtype &&
        op->kernels[j].face == kernel->face)
      return 0;
  return 1;
}

static int list(micac_args *args, const mica_context *context) {
  micah_json json = { 0 };
  const mica_op *op;
  if (args->json) micah_json_array(&json, NULL);
  for (int i = 0; (op = mica_get_op(context, i)); i++) {
    char backends[64] = "";
    for (int k = 0; k < op->n_kernels; k++) {
      const mica_kernel *kernel = &op->kernels[k];
      if (!first_phase(op, k) || kernel->face >= MICA_NFACE) continue; /* a fused slot is no face of its own */
      if (args->json) {
        micah_json_object(&json, NULL);
        micah_json_string(&json, "op", op->name);
        micah_json_string(&json, "face", mica_face_name(kernel->face));
        micah_json_string(&json, "backend", mica_backend_name(kernel->backend));
        micah_json_string(&json, "dtype", mica_dtype_name(kernel->dtype));
        micah_json_end(&json);
      } else if (kernel->face == MICA_FORWARD) {
        size_t n = strlen(backends);
        snprintf(backends + n, sizeof backends - n, " %s/%s", mica_backend_name(kernel->backend),
                 mica_dtype_name(kernel->dtype));
      }
    }
    if (!args->json) printf("%-16s %-40s%s\n", op->name, op->doc, backends);
  }
  if (!args->json) return MICAC_OK;
  micah_json_end(&json);
  return print_json(args, &json);
}

static const struct { int bit; const char *name; } wire_names[] = {
  { MICA_V, "v" }, { MICA_D, "d" }, { MICA_T, "t" }, { MICA_TD, "td" },
};

static void wire_list(micah_json *json, const char *key, int bits) {
  micah_json_array(json, key);
  for (int i = 0; i < MICA_COUNT(wire_names); i++)
    if (bits & wire_names[i].bit) micah_json_string(json, NULL, wire_names[i].name);
  micah_json_end(json);
}

static const char *role_name(uint32_t role) {
  return role & MICA_INDEX ? "index" : role & MICA_SAVED ? "saved" : role & MICA_OUT ? "output"
         : role & MICA_PARAM ? "parameter" : "input";
}

static int describe_json(micac_args *args, const mica_op *op) {
  micah_json json = { 0 };
  micah_json_object(&json, NULL);
  micah_json_string(&json, "op", op->name);
  micah_json_string(&json, "doc", op->doc);
  micah_json_array(&json, "ports");
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    micah_json_object(&json, NULL);
    micah_json_string(&json, "name", operand->name);
    micah_json_string(&json, "shape", operand->shape);
    micah_json_string(&json, "role", role_name(operand->role));
    micah_json_bool(&json, "optional", !!(operand->role & MICA_OPTIONAL));
    micah_json_string(&json, "doc", operand->doc);
    for (int face = 0; face < MICA_NFACE; face++) {
      micah_json_object(&json, mica_face_name(face));
      wire_list(&json, "reads", operand->reads[face]);
      wire_list(&json, "writes", operand->writes[face]);
      micah_json_end(&json);
    }
    micah_json_end(&json);
  }
  micah_json_end(&json);
  micah_json_array(&json, "sizes");
  for (int i = 0; i < op->n_dims; i++) micah_json_string(&json, NULL, op->dims[i].name);
  micah_json_end(&json);
  micah_json_array(&json, "settings");
  for (int i = 0; i < op->n_params; i++) {
    const mica_param *param = &op->params[i];
    micah_json_object(&json, NULL);
    micah_json_string(&json, "name", param->name);
    if (param->type == MICA_PARAM_CHOICE) {
      char text[64];
      micak_choice_name(param->choices, (int)param->value, text, sizeof text);
      micah_json_string(&json, "default", text);
      micah_json_string(&json, "choices", param->choices);
    } else {
      micah_json_real(&json, "default", param->value);
      micah_json_real(&json, "least", param->lo);
      micah_json_real(&json, "most", param->hi);
    }
    micah_json_string(&json, "doc", param->doc);
    micah_json_end(&json);
  }
  micah_json_end(&json);
  micah_json_end(&json);
  return print_json(args, &json);
}

static void print_wires(const char *what, int bits) {
  if (!bits) return;
  printf(" %s", what);
  for (int i = 0; i < MICA_COUNT(wire_names); i++)
    if (bits & wire_names[i].bit) printf(" .%s", wire_names[i].name);
}

static int describe(micac_args *args, const mica_op *op) {
  if (args->json) return describe_json(args, op);
  printf("%s: %s\n\nports (task axis first):\n", op->name, op->doc);
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    printf("  %-8s (%s) %s%s: %s\n", operand->name, operand->shape, role_name(operand->role),
           operand->role & MICA_OPTIONAL ? ", optional" : "", operand->doc ? operand->doc : "");
    for (int face = 0; face < MICA_NFACE; face++) {
      if (!(operand->reads[face] | operand->writes[face])) continue;
      printf("           %-12s", mica_face_name(face));
      print_wires("reads", operand->reads[face]);
      print_wires(operand->reads[face] ? ", writes" : "writes", operand->writes[face]);
      printf("\n");
    }
  }
  printf("\nsettings (--set name=value; sizes follow from the arrays):\n ");
  for (int i = 0; i < op->n_dims; i++) printf(" %s", op->dims[i].name);
  printf("\n");
  for (int i = 0; i < op->n_params; i++) {
    const mica_param *param = &op->params[i];
    char              text[64];
    if (param->type == MICA_PARAM_CHOICE) micak_choice_name(param->choices, (int)param->value, text, sizeof text);
    else snprintf(text, sizeof text, "%g", param->value);
    printf("  %s=%s%s%s%s  %s\n", param->name, text, param->choices ? " (" : "", param->choices ? param->choices : "",
           param->choices ? ")" : "", param->doc ? param->doc : "");
  }
  return MICAC_OK;
}

static int choose(const micac_args *args, const char *option, const char *fallback, const char *choices) {
  const char *value = micac_option(args, option);
  int         index = micak_choice(choices, value ? value : fallback, strlen(value ? value : fallback));
  if (index < 0) micac_usage(args, "--%s is '%s', expected one of %s", option, value, choices);
  return index;
}

static int run(micac_args *args) {
  mica_context *context = NULL;
  mica_status   status = micac_context(0, &context);
  if (status < 0) return micac_fail(args, status);
  int code = MICAC_OK;
  const mica_op *op = NULL;
  if (micac_option(args, "list")) {
    code = list(args, context);
  } else if (args->n_positional != 1) {
    code = micac_usage(args, "expected the name of one operation, got %d; mica op --list shows them", args->n_positional);
  } else if ((status = mica_find_op(context, args->positional[0], &op)) < 0) {
    code = micac_fail(args, status);
  } else if (micac_option(args, "describe")) {
    code = describe(args, op);
  } else {
    micac_op_job job = { .op = op, .in = micac_option(args, "in"), .out = micac_option(args, "out") };
    int dtype = choose(args, "dtype", "f32", "f32|f64|bf16");
    job.face = choose(args, "face", "forward", "forward|backward|jvp|backward_jvp");
    job.backend = choose(args, "backend", "cpu", "ref|cpu|cuda");
    job.dtype = dtype; /* MICA_F32, F64, BF16 in this order */
    for (int i = 0; i < args->n_options; i++)
      if (!strcmp(args->option_names[i], "set") && job.n_set < MICAC_MAX_SETTINGS)
        job.set[job.n_set++] = args->option_values[i];
    if (dtype < 0 || job.face < 0 || job.backend < 0) code = MICAC_USAGE;
    else if (!job.in || !job.out) code = micac_usage(args, "--in FILE and --out FILE are needed to run a face");
    else if ((status = micac_op_run(context, &job)) < 0) code = micac_fail(args, status);
    else if (args->json) printf("{\"op\":\"%s\",\"face\":\"%s\",\"wires\":%d}\n", op->name, mica_face_name(job.face), job.written);
  }
  mica_context_destroy(context);
  return code;
}

const micac_command micac_op = {
  .name = "op",
  .summary = "list, describe and run single faces of operations",
  .usage = "--list | NAME --describe | NAME --face F --in FILE --out FILE [--set KEY=VALUE ...]",
  .help =
      "  --list           all operations; with --json one object for each face, backend and dtype\n"
      "  --describe       ports, shapes, settings, and the wires that each face reads and writes\n"
      "  --face F         forward | backward | jvp | backward_jvp (runs the faces that it needs first)\n"
      "  --backend B      ref | cpu | cuda (default cpu)\n"
      "  --dtype D        f32 | f64 | bf16 (default f32; f64 and bf16 on ref)\n"
      "  --set KEY=VALUE  a setting; may be repeated. PORT=none leaves an optional port out\n"
      "  --in FILE        safetensors with wires by name: x.v, x.t, y.d, y.td ...; a missing t, td or output d is zero\n"
      "  --out FILE       safetensors: outputs' v and t, inputs' d and td\n"
      "  --json           one JSON value on standard output\n"
      "\na parameter given without its task axis is shared by all tasks. packed rows: give (N, ...) and cu_seqlens\n"
      "(cu_seqlens_PORT where lengths differ between ports), B + 1 offsets.\n"
      "\nexamples:\n"
      "  mica op --list --json\n"
      "  mica op attention --describe\n"
      "  mica op attention --face backward_jvp --set mask=causal --in ports.safetensors --out out.safetensors\n",
  .options = "list describe face: backend: dtype: set: in: out: json",
  .run = run,
};
