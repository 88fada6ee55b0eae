/* journal.c - a line "boot ID", then lines "begin WHAT" and "end"; one file per tuner, named by its process. A torn
 * last line is ignored. */
#include "journal.h"
#include "fail.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { patience = 2 };

static int count_of(qn_store *s, const char *what) {
  cJSON *j = qn_store_get(s, "suspect", what);
  int n = cJSON_IsNumber(j) ? j->valueint : 0;
  cJSON_Delete(j);
  return n;
}

bool qn__journal_suspect(qn_store *s, const char *what) { return count_of(s, what) >= patience; }

/* What the system calls the time since it was started; "" if it does not say. */
static void boot_id(char *out, size_t size) {
  FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (!f || !fgets(out, (int)size, f)) *out = 0;
  out[strcspn(out, "\n")] = 0;
  if (f) fclose(f);
}

/* Count the step that the journal at `path` left open, unless it is of this boot. */
static void take_over(qn_store *s, const char *path) {
  char *line = NULL, open[1024] = "", boot[64];
  size_t room = 0;
  ssize_t n;
  FILE *f = fopen(path, "r");
  boot_id(boot, sizeof boot);
  bool same_boot = false;
  while (f && (n = getline(&line, &room, f)) > 0) {
    if (line[n - 1] != '\n') break;
    line[n - 1] = 0;
    if (!strncmp(line, "boot ", 5)) same_boot = *boot && !strcmp(line + 5, boot);
    else if (!strncmp(line, "begin ", 6)) snprintf(open, sizeof open, "%s", line + 6);
    else *open = 0;
  }
  if (*open && !same_boot) {
    cJSON *count = cJSON_CreateNumber(count_of(s, open) + 1);
    qn_store_put(s, "suspect", open, count);
    cJSON_Delete(count);
  }
  free(line);
  if (f) fclose(f);
  unlink(path);
}

static qn_status append(qn_journal *j, const char *text) {
  size_t n = strlen(text);
  if (write(j->fd, text, n) != (ssize_t)n || fdatasync(j->fd))
    return qn__fail(QN_E_IO, "%s: %s", j->path, strerror(errno));
  return QN_OK;
}

qn_status qn__journal_open(qn_store *s, qn_journal *out) {
  char folder[4150], path[4500];
  snprintf(folder, sizeof folder, "%s/journal", qn_store_path(s));
  if (mkdir(folder, 0777) && errno != EEXIST) return qn__fail(QN_E_IO, "%s: %s", folder, strerror(errno));
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    long pid = strtol(e->d_name, NULL, 10);
    if (pid <= 0 || (pid != getpid() && !kill((pid_t)pid, 0))) continue; /* alive: its own business */
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    take_over(s, path);
  }
  if (d) closedir(d);
  snprintf(out->path, sizeof out->path, "%.4150s/%ld", folder, (long)getpid());
  out->fd = open(out->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (out->fd < 0) return qn__fail(QN_E_IO, "%s: %s", out->path, strerror(errno));
  char boot[64], line[80];
  boot_id(boot, sizeof boot);
  snprintf(line, sizeof line, "boot %s\n", boot);
  return append(out, line);
}

qn_status qn__journal_begin(qn_journal *j, const char *what) {
  char line[1024];
  snprintf(line, sizeof line, "begin %.1000s\n", what);
  return append(j, line);
}

qn_status qn__journal_end(qn_journal *j) { return append(j, "end\n"); }

void qn__journal_close(qn_journal *j) {
  if (j->fd < 0) return;
  close(j->fd);
  unlink(j->path);
  j->fd = -1;
}
