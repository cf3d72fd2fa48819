/* task_support.h: open a family from a line of settings and hold batches of it. */
#ifndef TASK_SUPPORT_H
#define TASK_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/io/config.h"
#include "host/task/families.h"

#define UNUSED __attribute__((unused))

typedef struct opened {
  const mica_family *family;
  mica_context      *context;
  micah_config      *config;
  void              *settings, *self;
} opened;

static UNUSED const mica_family *family_named(const char *name) {
  for (int32_t i = 0; micah_builtin_family(i); i++)
    if (strcmp(micah_builtin_family(i)->name, name) == 0) return micah_builtin_family(i);
  fail_msg("no family %s", name);
  return NULL;
}

static UNUSED void close_opened(opened *o) {
  if (o->self) o->family->close(o->self);
  free(o->settings);
  if (o->config) micah_config_destroy(o->config);
  if (o->context) mica_context_destroy(o->context);
  memset(o, 0, sizeof *o);
}

/* settings: YAML lines; the status of the config check or of open */
static UNUSED mica_status try_open(const char *family, const char *settings, int split, uint64_t seed, int64_t steps,
                                   opened *o) {
  memset(o, 0, sizeof *o);
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  o->family = family_named(family);
  assert_int_equal(micah_context_new(&options, &o->context), MICA_OK);
  o->settings = calloc(1, o->family->config_size);
  assert_non_null(o->settings);
  mica_status status = micah_config_parse("test.yaml", settings, strlen(settings), &o->config);
  if (status >= 0)
    status = micah_config_fill(micah_config_root(o->config), o->family->keys, o->family->n_keys, NULL, 0, o->settings);
  mica_family_env env = { sizeof env, o->context, seed, split, 10, steps };
  if (status >= 0) status = o->family->open(&env, o->settings, &o->self);
  return status;
}

static UNUSED opened open_family_named(const char *family, const char *settings, int split, uint64_t seed) {
  opened o;
  mica_status status = try_open(family, settings, split, seed, 100, &o);
  if (status < 0) fail_msg("%s", mica_last_error());
  return o;
}

/* the settings must be refused with a message that has `text` in it */
static UNUSED void refused(const char *family, const char *settings, const char *text) {
  opened o;
  mica_status status = try_open(family, settings, MICA_SPLIT_TRAIN, 1, 100, &o);
  if (status >= 0) fail_msg("accepted: %s", settings);
  if (!strstr(mica_last_error(), text)) fail_msg("\"%s\" does not name %s", mica_last_error(), text);
  o.self = NULL;
  close_opened(&o);
}

/* a batch in memory, its numbers set to a pattern first */
typedef struct held {
  mica_batch     batch;
  const int32_t **axes;          /* on the heap: the batch points there, and a held is copied */
  int32_t       *offsets;
  void         **data;
  size_t         bytes[4];
  int32_t        fields;
  double        *loss;
} held;

static UNUSED void hold_rows(opened *o, int64_t first, int64_t count, const int32_t *rows, held *h) {
  const mica_field *fields;
  memset(h, 0, sizeof *h);
  h->offsets = calloc((size_t)count + 1, sizeof *h->offsets);
  h->axes = calloc(1, sizeof *h->axes);
  h->data = calloc(4, sizeof *h->data);
  assert_true(h->offsets && h->axes && h->data);
  h->axes[0] = h->offsets;
  for (int64_t i = 0; i < count; i++) h->offsets[i + 1] = h->offsets[i] + rows[i];
  size_t total = (size_t)h->offsets[count];
  assert_int_equal(o->family->fields(o->self, &fields, &h->fields), MICA_OK);
  assert_true(h->fields <= 4);
  for (int32_t f = 0; f < h->fields; f++) {
    size_t row = 4;
    for (int32_t r = 0; r < fields[f].rank; r++) row *= (size_t)fields[f].shape[r];
    h->bytes[f] = total * row;
    h->data[f] = malloc(h->bytes[f] + 16);
    assert_non_null(h->data[f]);
    memset(h->data[f], 0xa5, h->bytes[f] + 16);
  }
  h->loss = malloc((total + 1) * sizeof *h->loss);
  assert_non_null(h->loss);
  for (size_t i = 0; i <= total; i++) h->loss[i] = -777;
  h->batch = (mica_batch){ sizeof(mica_batch), first, count, h->axes, h->data };
}

static UNUSED void drop(held *h) {
  for (int32_t f = 0; f < h->fields; f++) {
    const unsigned char *guard = (const unsigned char *)h->data[f] + h->bytes[f];
    for (int i = 0; i < 16; i++) assert_int_equal(guard[i], 0xa5);
    free(h->data[f]);
  }
  free(h->axes);
  free(h->data);
  free(h->offsets);
  free(h->loss);
}

static UNUSED held fill_batch(opened *o, int64_t first, int64_t count) {
  held h;
  int32_t *rows = calloc((size_t)count, sizeof *rows);
  assert_non_null(rows);
  assert_int_equal(o->family->sizes(o->self, first, count, rows), MICA_OK);
  hold_rows(o, first, count, rows, &h);
  free(rows);
  if (o->family->fill(o->self, &h.batch) < 0) fail_msg("%s", mica_last_error());
  return h;
}

static UNUSED int32_t which_predictor(const opened *o, const char *name) {
  int32_t index = 0;
  size_t n = strlen(name);
  for (const char *at = o->family->predictors; *at; index++) {
    size_t length = strcspn(at, " ");
    if (length == n && strncmp(at, name, n) == 0) return index;
    at += length + (at[length] == ' ');
  }
  fail_msg("no predictor %s", name);
  return -1;
}

static UNUSED void exact_loss(opened *o, const char *predictor, held *h) {
  if (o->family->exact(o->self, which_predictor(o, predictor), &h->batch, h->loss) < 0)
    fail_msg("%s", mica_last_error());
  assert_true(h->loss[h->offsets[h->batch.count]] == -777);
}

static UNUSED void close_to(double got, double want, double tolerance, const char *what, int64_t where) {
  if (!(fabs(got - want) <= tolerance))
    fail_msg("%s at %lld: got %.15g, expected %.15g within %g", what, (long long)where, got, want, tolerance);
}

/* task n does not depend on its batch, and differs from its neighbours, from the test split and from another seed */
static UNUSED void check_identity(const char *family, const char *settings, int64_t first) {
  opened o = open_family_named(family, settings, MICA_SPLIT_TRAIN, 7);
  opened again = open_family_named(family, settings, MICA_SPLIT_TRAIN, 7);
  opened test = open_family_named(family, settings, MICA_SPLIT_TEST, 7);
  opened other = open_family_named(family, settings, MICA_SPLIT_TRAIN, 8);
  held all = fill_batch(&o, first, 9), single = fill_batch(&again, first + 5, 1);
  held of_test = fill_batch(&test, first + 5, 1), of_other = fill_batch(&other, first + 5, 1);
  held next = fill_batch(&o, first + 6, 1), same = fill_batch(&o, first, 9);
  for (int32_t f = 0; f < all.fields; f++) {
    size_t row = all.bytes[f] / (size_t)all.offsets[9], at = row * (size_t)all.offsets[5];
    assert_int_equal(single.bytes[f], row * (size_t)(all.offsets[6] - all.offsets[5]));
    assert_memory_equal((char *)all.data[f] + at, single.data[f], single.bytes[f]);
    assert_memory_equal(all.data[f], same.data[f], all.bytes[f]);
  }
  int differs[3] = { 0, 0, 0 };
  held *others[3] = { &of_test, &of_other, &next };
  for (int i = 0; i < 3; i++) {
    differs[i] = others[i]->bytes[1] != single.bytes[1] ||
                 memcmp(others[i]->data[1], single.data[1], single.bytes[1]) != 0;
    if (!differs[i]) fail_msg("%s: task equals another (%d)", family, i);
  }
  drop(&all), drop(&single), drop(&of_test), drop(&of_other), drop(&next), drop(&same);
  close_opened(&o), close_opened(&again), close_opened(&test), close_opened(&other);
}

#endif
