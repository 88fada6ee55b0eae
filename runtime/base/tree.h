/* tree.h - folders with all that is in them. */
#ifndef QN_TREE_H
#define QN_TREE_H
#include "fail.h"

/* Remove a file, or a folder with all that is in it; links are not followed. 0, or -1 with errno. Any thread. */
int qn__tree_remove(const char *path);

/* Make a folder and those above it, as far as they are not there. QN_E_IO: which of them cannot be made, and why. Any
 * thread. */
qn_status qn__tree_make(const char *path);
#endif
