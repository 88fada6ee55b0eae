/* tree.c - folders with all that is in them: see tree.h. */
#include "tree.h"
#include <ftw.h>
#include <stdio.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}

int qn__tree_remove(const char *path) { return nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS); }
