/* tree.c - folders with all that is in them: see tree.h. */
#include "tree.h"
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}

int qn__tree_remove(const char *path) { return nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

qn_status qn__tree_make(const char *path) {
  char p[PATH_MAX];
  if (snprintf(p, sizeof p, "%s", path) >= (int)sizeof p)
    return qn__fail(QN_E_IO, "%s: the path is longer than %d", path, PATH_MAX);
  for (char *c = p + 1;; c++) {
    if (*c && *c != '/') continue;
    char keep = *c;
    *c = 0;
    if (mkdir(p, 0775) && errno != EEXIST) return qn__fail(QN_E_IO, "cannot make %s: %s", p, strerror(errno));
    if (!(*c = keep)) return QN_OK;
  }
}
