/* file.c - whole files, in and out: see file.h. */
#include "file.h"
#include "leash.h"
#include "tree.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- In ---------------------------------------------------------------------------------------------------------- */

qn_status qn__file_open(const char *path, int *fd, size_t *size) {
  struct stat st;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for the writer of a FIFO */
  if (*fd < 0) return qn__fail(qn__errno_status(errno), "%s: %s", path, strerror(errno));
  if (!fstat(*fd, &st) && S_ISREG(st.st_mode)) return *size = (size_t)st.st_size, QN_OK;
  close(*fd);
  return qn__fail(QN_E_IO, "%s: not a file", path);
}

qn_status qn__file_lock(int fd, const char *path) {
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (!fcntl(fd, F_OFD_SETLK, &whole) || (errno != EAGAIN && errno != EACCES)) return QN_OK;
  return qn__fail(QN_E_IO, "%s: another run is at work on it", path);
}

/* Files of /proc say that they are empty: what counts is the end that reading meets. */
qn_status qn__file_read(const char *path, char **data, size_t *size) {
  int fd;
  size_t room;
  ssize_t n = 1;
  *data = NULL;
  *size = 0;
  QN_TRY(qn__file_open(path, &fd, &room));
  for (room += 2; n > 0; room *= 2) {
    char *grown = realloc(*data, room);
    if (!grown) break;
    *data = grown;
    while (*size < room - 1 && (n = read(fd, *data + *size, room - 1 - *size)) > 0) *size += (size_t)n;
  }
  qn_status s = n < 0 ? qn__fail(qn__errno_status(errno), "%s: %s", path, strerror(errno))
                : n   ? qn__fail(QN_E_NOMEM, "%s: no memory for %zu bytes", path, room)
                      : QN_OK;
  close(fd);
  if (s == QN_OK) (*data)[*size] = 0;
  else free(*data), *data = NULL;
  return s;
}

/* ---- Out --------------------------------------------------------------------------------------------------------- */

qn_status qn__output_open(qn_output *o, const char *path) {
  static _Atomic unsigned serial; /* so that threads that write the same file do not share a temporary one */
  struct stat st;
  int fd;
  if (!stat(path, &st) && !S_ISREG(st.st_mode)) /* a rename would replace a device, too */
    return qn__fail(QN_E_IO, "%s: cannot be written: not a file", path);
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  do {
    if (snprintf(o->path, PATH_MAX, "%s", path) >= PATH_MAX ||
        snprintf(o->temporary, PATH_MAX, "%.*s.%s.%ld-%u", (int)(name - path), path, name, (long)getpid(), serial++) >=
            PATH_MAX)
      return qn__fail(QN_E_ARG, "%s: the path is longer than %d", path, PATH_MAX);
    fd = open(o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EEXIST);
  o->f = fd < 0 ? NULL : fdopen(fd, "wb");
  if (o->f) return qn__leash_path(o->temporary, true), QN_OK;
  qn_status s = qn__fail(qn__errno_status(errno), "%s: cannot be written: %s", path, strerror(errno));
  if (fd >= 0) close(fd), unlink(o->temporary);
  return s;
}

/* Make a rename in the folder of `path` last. Some file systems cannot; then it lasts when they see fit. */
static void sync_folder(char *path) {
  int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)fsync(fd);
  close(fd);
}

qn_status qn__output_close(qn_output *o) {
  bool ok = !ferror(o->f) && !fflush(o->f) && !fsync(fileno(o->f));
  int why = errno;
  if (fclose(o->f) && ok) ok = false, why = errno;
  if (ok && rename(o->temporary, o->path)) ok = false, why = errno;
  if (!ok) unlink(o->temporary);
  qn__leash_path(o->temporary, false);
  if (ok) return sync_folder(o->temporary), QN_OK;
  return qn__fail(qn__errno_status(why), "%s: cannot be written: %s", o->path, strerror(why));
}

void qn__output_abandon(qn_output *o) {
  fclose(o->f);
  unlink(o->temporary);
  qn__leash_path(o->temporary, false);
}

qn_status qn__file_replace(const char *path, const void *data, size_t size) {
  qn_output o;
  QN_TRY(qn__output_open(&o, path));
  setvbuf(o.f, NULL, _IONBF, 0); /* it is one piece */
  fwrite(data, 1, size, o.f);
  return qn__output_close(&o);
}

/* ---- Folders out ------------------------------------------------------------------------------------------------- */

/* What every folder with a checkpoint has one of. */
static bool tells_of_model(const char *name) { return !strcmp(name, "config.json") || !strcmp(name, "header.gguf"); }

/* What is in a folder: -1 if it cannot be read, 0: nothing, 1: files alone, one of which tells of a model; 2: else. */
static int contents(const char *path) {
  DIR *d = opendir(path);
  bool any = false, model = false, other = false;
  if (!d) return -1;
  for (struct dirent *e; (e = readdir(d));) {
    struct stat st;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    any = true;
    model = model || tells_of_model(e->d_name);
    other = other || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode);
  }
  closedir(d);
  return !any ? 0 : model && !other ? 1 : 2;
}

static qn_status check_place(const char *path, bool replace) {
  struct stat st;
  if (lstat(path, &st)) return QN_OK; /* there is nothing */
  if (!S_ISDIR(st.st_mode)) return qn__fail(QN_E_IO, "%s: cannot be written: not a folder", path);
  int in = contents(path);
  if (in < 0) return qn__fail(qn__errno_status(errno), "%s: %s", path, strerror(errno));
  if (in == 2) return qn__fail(QN_E_IO, "%s: not empty, and no checkpoint that could be replaced; name another", path);
  if (in && !replace) return qn__fail(QN_E_IO, "%s: not empty; --overwrite replaces it, -o names another", path);
  return QN_OK;
}

qn_status qn__output_folder_open(qn_output_folder *o, const char *path, bool replace) {
  static _Atomic unsigned serial;
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  *o = (qn_output_folder){.replace = replace};
  if (snprintf(o->path, PATH_MAX, "%.*s", (int)length, path) >= PATH_MAX)
    return qn__fail(QN_E_ARG, "%s: the path is longer than %d", path, PATH_MAX);
  QN_TRY(check_place(o->path, replace));
  const char *slash = strrchr(o->path, '/'), *name = slash ? slash + 1 : o->path;
  int made;
  do {
    if (snprintf(o->temporary, PATH_MAX, "%.*s.%s.%ld-%u", (int)(name - o->path), o->path, name, (long)getpid(),
                 serial++) >= PATH_MAX)
      return qn__fail(QN_E_ARG, "%s: the path is longer than %d", path, PATH_MAX);
  } while ((made = mkdir(o->temporary, 0777)) && errno == EEXIST);
  if (made || access(o->temporary, W_OK))
    return qn__fail(qn__errno_status(errno), "%s: cannot be written: %s", path, strerror(errno));
  qn__leash_path(o->temporary, true);
  return QN_OK;
}

qn_status qn__output_folder_close(qn_output_folder *o) {
  qn_status s = check_place(o->path, o->replace);
  bool swap = !s && contents(o->path) == 1;
  if (!s &&
      (swap ? renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_EXCHANGE) : rename(o->temporary, o->path)))
    s = qn__fail(qn__errno_status(errno), "%s: cannot be written: %s", o->path, strerror(errno));
  if (s || swap) qn__output_folder_abandon(o); /* with what was there before */
  else qn__leash_path(o->temporary, false);
  if (!s) sync_folder(o->temporary);
  return s;
}

void qn__output_folder_abandon(qn_output_folder *o) {
  if (!qn__tree_remove(o->temporary)) qn__leash_path(o->temporary, false);
}
