/* journal.c - lines "begin WHAT", "at WHAT" and "end". A torn last line is ignored.
 *
 * The lock is of the open file (F_OFD_SETLK): it goes with the process, however that ends, and works between machines
 * where the file system has locks. Where it has none, nobody is taken for dead. */
#include "journal.h"
#include "fail.h"
#include "json.h"
#include "store_file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Suspects ---------------------------------------------------------------------------------------------------- */

int qn__journal_suspicion(qn_store *s, const char *what) {
  cJSON *j = qn__store_get(s, "suspect", what);
  int n = qn__json_int(j, "weight", 0);
  cJSON_Delete(j);
  return n;
}

void qn__journal_trust(qn_store *s, const char *what) {
  char name[40], path[PATH_MAX + 64];
  qn__entry_name(what, name);
  snprintf(path, sizeof path, "%s/suspect/%s", qn__store_path(s), name);
  unlink(path);
}

static void suspect(qn_store *s, const char *what, bool machine) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_number(j, "weight", qn__journal_suspicion(s, what) + (machine ? 2 : 1));
  qn__json_add_text(j, "why", machine ? "the machine went down in it" : "a run went down in it");
  qn__store_put(s, "suspect", what, j);
  cJSON_Delete(j);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

typedef struct owner {
  char host[65], boot[40], pids[24];
} owner;

static void first_line(const char *path, char *out, size_t size) {
  FILE *f = fopen(path, "r");
  if (!f || !fgets(out, (int)size, f)) *out = 0;
  out[strcspn(out, "\n")] = 0;
  if (f) fclose(f);
}

static owner myself(void) {
  owner o = {0};
  struct stat pids;
  gethostname(o.host, sizeof o.host - 1);
  for (char *c = o.host; *c; c++)
    if (*c == '.' || *c == '/') *c = '-';
  first_line("/proc/sys/kernel/random/boot_id", o.boot, sizeof o.boot);
  if (!*o.boot) strcpy(o.boot, "unknown");
  snprintf(o.pids, sizeof o.pids, "%ju", stat("/proc/self/ns/pid", &pids) ? 0 : (uintmax_t)pids.st_ino);
  return o;
}

/* ---- Dead runs --------------------------------------------------------------------------------------------------- */

static bool lock(int fd) {
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return !fcntl(fd, F_OFD_SETLK, &whole);
}

static bool removed(int fd) {
  struct stat s;
  return fstat(fd, &s) || !s.st_nlink;
}

/* The step that a journal left open, with the machine or with the run alone; "" if none. */
static void read_open(FILE *f, bool machine, char out[1024]) {
  char *line = NULL;
  size_t room = 0;
  ssize_t n;
  *out = 0;
  while ((n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n') {
    line[n - 1] = 0;
    if (!strncmp(line, "begin ", 6)) snprintf(out, 1024, "%s", line + 6);
    else if (strncmp(line, "at ", 3)) *out = 0;
    else if (!machine) snprintf(out, 1024, "%s", line + 3);
  }
  free(line);
}

/* Count what a dead run left open, and remove its journal. False: it is alive, as far as one can tell. */
static bool take_over(qn_store *s, const char *path, bool machine) {
  char what[1024];
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  FILE *f = fd >= 0 && lock(fd) && !removed(fd) ? fdopen(fd, "r") : NULL;
  if (!f) {
    if (fd >= 0) close(fd);
    return false;
  }
  read_open(f, machine, what);
  if (*what) suspect(s, what, machine);
  unlink(path);
  fclose(f);
  return true;
}

/* Names that are no journal of this host's are left alone: it cannot tell whether their run lives. */
static size_t take_over_all(qn_store *s, const char *folder, const owner *me) {
  size_t alive = 0, n = strlen(me->host);
  char path[4500], boot[40];
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (*e->d_name == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    bool mine = !strncmp(e->d_name, me->host, n) && sscanf(e->d_name + n, ".%39[^.].%*u.%*d", boot) == 1;
    alive += !mine || !take_over(s, path, strcmp(boot, me->boot) != 0);
  }
  if (d) closedir(d);
  return alive;
}

/* ---- Our own ----------------------------------------------------------------------------------------------------- */

static char at_work[sizeof((qn_journal *)0)->path]; /* of the one that is open; "" if none is */

void qn__journal_drop(void) { unlink(at_work); }

static qn_status unwritable(const char *path) {
  return qn__fail(QN_E_IO,
                  "store: %s: %s; set QUERNEL_CACHE to a folder that can be written: one that is only read is "
                  "QUERNEL_CACHE_SYSTEM's",
                  path, strerror(errno));
}

/* Between its making and its lock another may have taken it for a dead one's: then once more. */
static qn_status make(qn_journal *j) {
  for (;;) {
    j->fd = open(j->path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (j->fd < 0) return unwritable(j->path);
    lock(j->fd);
    if (!removed(j->fd)) break;
    close(j->fd);
  }
  memcpy(at_work, j->path, sizeof at_work);
  return QN_OK;
}

qn_status qn__journal_open(qn_store *s, qn_journal *out) {
  char folder[4150];
  owner me = myself();
  *out = (qn_journal){.fd = -1};
  snprintf(folder, sizeof folder, "%s/journal", qn__store_path(s));
  if (mkdir(folder, 0777) && errno != EEXIST) return unwritable(folder);
  out->others = take_over_all(s, folder, &me);
  snprintf(out->path, sizeof out->path, "%s/%s.%s.%s.%ld", folder, me.host, me.boot, me.pids, (long)getpid());
  return make(out);
}

void qn__journal_close(qn_journal *j) {
  if (j->fd < 0) return;
  *at_work = 0;
  unlink(j->path);
  close(j->fd);
  j->fd = -1;
}

static void append(qn_journal *j, const char *verb, const char *what, bool sync) {
  char line[1100];
  int n = snprintf(line, sizeof line, "%s%.1000s\n", verb, what);
  bool kept = write(j->fd, line, (size_t)n) == n && (!sync || !fdatasync(j->fd));
  if (!kept && !j->error) j->error = errno ? errno : ENOSPC;
}

void qn__journal_begin(qn_journal *j, const char *what) { append(j, "begin ", what, true); }
void qn__journal_at(qn_journal *j, const char *what) { append(j, "at ", what, false); }
void qn__journal_end(qn_journal *j) { append(j, "end", "", true); }
