/* io_folder.h - a folder of its own for each test of the checkpoint readers, and files to put there. */
#ifndef QN_IO_FOLDER_H
#define QN_IO_FOLDER_H
#include "fail.h"
#include "quernel_io.h"
#include "suite.h"
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64], path[PATH_MAX];

static inline const char *in_folder(const char *name) {
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static inline void setup(void) {
  strcpy(folder, "/tmp/quernel-open-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static inline void teardown(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  ck_assert_int_eq(system(command), 0);
}

static inline void put_text(const char *name, const char *s) {
  FILE *f = fopen(in_folder(name), "wb");
  ck_assert_ptr_nonnull(f);
  fputs(s, f);
  ck_assert_int_eq(fclose(f), 0);
}

static const uint8_t zeros[4096];

static inline qn_save tensor(const char *name, const char *dtype, int64_t n,
                             int64_t k) { /* of zeros; k = 0: a vector */
  return (qn_save){name, dtype, k ? 2 : 1, {n, k}, zeros};
}

static inline void put_tensors(const char *name, const qn_save *t, size_t n) {
  ck_assert_msg(qn_safetensors_write(in_folder(name), t, n, NULL, 0) == QN_OK, "%s", qn_io_errmsg());
}

static inline qn_model *open_folder(void) {
  qn_model *m;
  ck_assert_msg(qn_model_open(folder, &m) == QN_OK, "%s", qn_io_errmsg());
  return m;
}

static inline void refuse(const char *where, qn_status status, const char *expected) {
  qn_model *m;
  qn_status s = qn_model_open(where, &m);
  ck_assert_ptr_null(m);
  ck_assert_msg(s == status && strstr(qn_io_errmsg(), expected), "%s: %s, expected %s: %s", qn_status_name(s),
                qn_io_errmsg(), qn_status_name(status), expected);
}
#endif
