#include "common/names.h"

#include <stdio.h>
#include <string.h>

enum { LONGEST = 64 };

/* levenshtein distance, two rows */
static int distance(const char *a, const char *b) {
  int row[LONGEST + 1], n = (int)strnlen(a, LONGEST), m = (int)strnlen(b, LONGEST);
  for (int j = 0; j <= m; j++) row[j] = j;
  for (int i = 1; i <= n; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= m; j++) {
      int best = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      row[j] = best;
    }
  }
  return row[m];
}

const char *micak_nearest(const char *wanted, micak_name_fn name, const void *list) {
  const char *best = NULL, *candidate;
  int least = (int)strnlen(wanted, LONGEST) / 2 + 1;
  for (int i = 0; (candidate = name(list, i)); i++) {
    int d = distance(wanted, candidate);
    if (d <= least && (!best || d < least)) {
      least = d;
      best = candidate;
    }
  }
  return best;
}

int micak_choice(const char *choices, const char *wanted, size_t length) {
  int index = 0;
  for (const char *p = choices; p && *p; index++) {
    size_t n = strcspn(p, "|");
    if (n == length && !memcmp(p, wanted, n)) return index;
    p += n + (p[n] == '|');
  }
  return -1;
}

void micak_choice_name(const char *choices, int index, char *text, size_t size) {
  const char *p = choices;
  for (int i = 0; p && *p; i++) {
    size_t n = strcspn(p, "|");
    if (i == index) {
      snprintf(text, size, "%.*s", (int)n, p);
      return;
    }
    p += n + (p[n] == '|');
  }
  snprintf(text, size, "?");
}
