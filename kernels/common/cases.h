/* cases.h: more flags of mica_case, beside those of mica/op.h. */
#ifndef MICA_KERNELS_COMMON_CASES_H
#define MICA_KERNELS_COMMON_CASES_H

enum {
  MICA_CASE_LENGTHS = 16,                    /* kernels against the reference alone: packed tasks of awkward lengths, or
                                                one task as it is where B=1 */
  MICA_CASE_WIDE = 32,                       /* with it: values of the first input up to 300 times as large */
  MICA_CASE_HALF = 64                        /* kernels in bf16 alone, in more layouts than bf16 is otherwise looked at */
};

#endif
