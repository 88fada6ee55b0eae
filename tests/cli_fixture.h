/* cli_fixture.h - runs the built tool as its users do: a command line in an empty folder, a status, two texts.
 *
 * cli_enter and cli_leave are the fixture: a scratch folder under /tmp, removed with all that is in it. cli(fmt, …)
 * runs one shell command there, in which `quernel` is the tool of this build; what it said is in cli_out and cli_err.
 * cli_store_enter and cli_store_leave are for a whole test case: $STORE is a folder that its tests share, so that what
 * one of them has measured is known to the next. */
#ifndef CLI_FIXTURE_H
#define CLI_FIXTURE_H
#include "suite.h"
#include <check.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
static char cli_dir[64], cli_command[4096], cli_out[1 << 18], cli_err[1 << 16];

static void cli_enter(void) {
  snprintf(cli_dir, sizeof cli_dir, "/tmp/quernel-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(cli_dir));
}

static int cli_remove(const char *path, const struct stat *st UNUSED, int flag UNUSED, struct FTW *at UNUSED) {
  return remove(path);
}

static void cli_leave(void) { nftw(cli_dir, cli_remove, 16, FTW_DEPTH | FTW_PHYS); }

static char cli_store[64];

static UNUSED void cli_store_enter(void) {
  snprintf(cli_store, sizeof cli_store, "/tmp/quernel-store-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(cli_store));
  setenv("STORE", cli_store, 1);
}
static UNUSED void cli_store_leave(void) { nftw(cli_store, cli_remove, 16, FTW_DEPTH | FTW_PHYS); }

/* A file of the scratch folder. */
static const char *cli_path(const char *name) {
  static char path[4][256];
  static unsigned turn;
  char *out = path[turn++ % 4];
  snprintf(out, sizeof path[0], "%s/%s", cli_dir, name);
  return out;
}

static void cli_read(const char *name, char *out, size_t size) {
  FILE *f = fopen(cli_path(name), "rb");
  size_t n = f ? fread(out, 1, size - 1, f) : 0;
  out[n] = 0;
  if (f) fclose(f);
}

static UNUSED void cli_write(const char *name, const void *data, size_t size) {
  FILE *f = fopen(cli_path(name), "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  ck_assert_int_eq(fclose(f), 0);
}

/* The exit status; 128 + the signal that ended it. */
static __attribute__((format(printf, 1, 2))) int cli(const char *fmt, ...) {
  char line[3072];
  va_list args;
  va_start(args, fmt);
  vsnprintf(line, sizeof line, fmt, args);
  va_end(args);
  snprintf(cli_command, sizeof cli_command,
           "cd %s && unset QUERNEL_CACHE XDG_CACHE_HOME && export PATH='%s':\"$PATH\" HOME=%s && { %s ; } >.out 2>.err",
           cli_dir, QN_BUILD, cli_dir, line);
  int status = system(cli_command);
  cli_read(".out", cli_out, sizeof cli_out);
  cli_read(".err", cli_err, sizeof cli_err);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif
