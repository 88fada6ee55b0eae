/* limit.c - see limit.h. */
#include "limit.h"
#include "bind.h"
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 5 };
static const size_t growth = (size_t)512 << 20;

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void *allocate(void *ud, void *p, size_t old, size_t size) {
  qn_lua_memory *m = ud;
  if (!p) old = 0; /* then it is a kind of object */
  if (size > old && size - old > m->most - m->used) return NULL;
  void *q = size ? realloc(p, size) : (free(p), NULL);
  if (q || !size) m->used += size - old;
  return q;
}

lua_State *qn__lua_state_new(qn_lua_memory *m) {
  *m = (qn_lua_memory){.most = SIZE_MAX};
  return lua_newstate(allocate, m);
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static const char watch_class[] = "quernel.watch";

typedef struct watch {
  qn_lua_memory *memory; /* NULL: not ours to count */
  size_t most;           /* that it had before */
  bool armed;
  timer_t timer;
  struct sigaction before;
  char text[256];
} watch;

/* On any thread of the process. */
static void overtime(int signal_, siginfo_t *info, void *context) {
  (void)context;
  const watch *w = info->si_value.sival_ptr;
  if (info->si_code == SI_TIMER && write(STDERR_FILENO, w->text, strlen(w->text)) >= 0) _exit(1);
  signal(signal_, SIG_DFL); /* a limit of the system's */
  raise(signal_);
}

static int watch_end(lua_State *L) {
  watch *w = luaL_checkudata(L, 1, watch_class);
  if (!w->armed) return 0;
  timer_delete(w->timer);
  sigaction(SIGXCPU, &w->before, NULL);
  w->armed = false;
  return 0;
}

/* The timer counts the time of the thread that makes it. Without one there is no limit. */
static void arm(watch *w) {
  struct sigaction act = {.sa_sigaction = overtime, .sa_flags = SA_SIGINFO};
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGXCPU, .sigev_value = {.sival_ptr = w}};
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &w->timer)) return;
  sigaction(SIGXCPU, &act, &w->before);
  w->armed = true;
}

/* watch:renew(where): a piece of work begins, of the template that messages name so */
static int watch_renew(lua_State *L) {
  watch *w = luaL_checkudata(L, 1, watch_class);
  const struct itimerspec limit = {.it_value = {.tv_sec = SECONDS}};
  snprintf(w->text, sizeof w->text, "quernel: %.150s: one call of a library function took over %d s; stopped\n",
           luaL_checkstring(L, 2), SECONDS);
  if (w->armed) timer_settime(w->timer, 0, &limit, NULL);
  return 0;
}

/* ---- Both -------------------------------------------------------------------------------------------------------- */

/* limit() -> watch: from now until it is closed */
static int watch_start(lua_State *L) {
  void *ud;
  watch *w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = (watch){.memory = lua_getallocf(L, &ud) == allocate ? ud : NULL};
  luaL_setmetatable(L, watch_class);
  arm(w);
  if (!w->memory) return 1;
  w->most = w->memory->most;
  if (w->most - w->memory->used > growth) w->memory->most = w->memory->used + growth;
  return 1;
}

static int watch_close(lua_State *L) {
  watch *w = luaL_checkudata(L, 1, watch_class);
  if (w->memory) w->memory->most = w->most;
  w->memory = NULL;
  return watch_end(L);
}

void qn__lua_limit(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"renew", watch_renew}, {"__close", watch_close}, {"__gc", watch_end}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"limit", watch_start}, {NULL, NULL}};
  qn__lua_class(L, watch_class, methods);
  luaL_setfuncs(L, functions, 0);
}
