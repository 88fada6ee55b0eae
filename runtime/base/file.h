/* file.h - whole files, in and out.
 *
 * Only regular files are read: a folder, a FIFO or a device at a path is an error at once, never a wait. What is
 * written replaces the file at its path when all of it is on the disk, or not at all. Any thread, any process. */
#ifndef QN_FILE_H
#define QN_FILE_H
#include "fail.h"
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

/* Open a regular file for reading; the caller closes *fd. QN_E_IO with the path and the reason. */
qn_status qn__file_open(const char *path, int *fd, size_t *size);

/* Lock a file that is open for writing until it is closed or the process ends; the lock is of this opening, not of the
 * process. QN_E_IO: another one has it. A file system without locks lets everyone in. */
qn_status qn__file_lock(int fd, const char *path);

/* All of a file, and a zero byte behind it. The caller frees *data, which is NULL on failure. QN_E_IO, QN_E_NOMEM. */
qn_status qn__file_read(const char *path, char **data, size_t *size);

/* Put `size` bytes in the place of the file at `path`, which need not be there. QN_E_IO: nothing has changed. */
qn_status qn__file_replace(const char *path, const void *data, size_t size);

/* The same for what is written piece by piece: to o->f, between open and close or abandon. It lies beside `path` under
 * a name of its own, ".NAME.PROCESS-SERIAL", until close, where all errors of writing show. */
typedef struct qn_output {
  FILE *f;
  char path[PATH_MAX], temporary[PATH_MAX];
} qn_output;

qn_status qn__output_open(qn_output *o, const char *path);
qn_status qn__output_close(qn_output *o);
void qn__output_abandon(qn_output *o);

/* The same for a folder: files are put into o->temporary, and close brings it to `path`, where nothing or an empty
 * folder may be. With `replace` a folder may be there that holds nothing but files, a config.json among them; it is
 * gone afterwards. */
typedef struct qn_output_folder {
  char path[PATH_MAX], temporary[PATH_MAX];
  bool replace;
} qn_output_folder;

qn_status qn__output_folder_open(qn_output_folder *o, const char *path, bool replace);
qn_status qn__output_folder_close(qn_output_folder *o);
void qn__output_folder_abandon(qn_output_folder *o);
#endif
