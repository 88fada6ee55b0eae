/* main.c - the tool `quernel`: a Lua state with the module in it, and lua/main.lua with the arguments. */
#include "bind.h"
#include "journal.h"
#include "leash.h"
#include "limit.h"
#include "supervise.h"
#include <errno.h>
#include <locale.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int luaopen_quernel(lua_State *L);

/* Messages are made for people and pass as they are; what is no text gets a traceback. */
static int handler(lua_State *L) {
  if (lua_isstring(L, 1)) return 1;
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

/* All of it runs protected, the set-up too. Argument: argv. Result: exit status. */
static int protected_main(lua_State *L) {
  char **argv = lua_touserdata(L, 1);
  luaL_openlibs(L);
  luaL_requiref(L, "quernel", luaopen_quernel, 0); /* scripts: require "quernel" */
  lua_getfield(L, -1, "main");
  lua_newtable(L);
  for (int i = 1; argv[i]; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_call(L, 1, 1);
  return 1;
}

static int fail(const char *text) {
  fprintf(stderr, "quernel: %s\n", text);
  return 1;
}

/* The tool is ended: all that it began goes first, then one line says what stays. A second signal ends it at once. */
static void part(int number, siginfo_t *info, void *context) {
  const char *text = qn__lua_parting();
  bool own = qn__supervisor_sent(info->si_pid);
  (void)context;
  qn__leash_pull();
  if (!own) qn__journal_drop(); /* a step that is interrupted is not suspect, unless by its own kernel */
  sigset_t all;
  signal(number, SIG_DFL); /* NVRTC's own handler calls this one, with signals blocked and without a reset */
  sigfillset(&all);
  pthread_sigmask(SIG_UNBLOCK, &all, NULL);
  if (write(STDERR_FILENO, text, strlen(text)) >= 0) raise(number);
  _exit(128 + number);
}

/* What the caller of the tool has it ignore (nohup) stays ignored. */
static void catch_signals(void) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction now, mine = {.sa_sigaction = part, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
  for (size_t i = 0; i < QN_COUNT(ends); i++)
    if (!sigaction(ends[i], NULL, &now) && now.sa_handler != SIG_IGN) sigaction(ends[i], &mine, NULL);
  signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
}

int main(int argc, char **argv) {
  (void)argc;
  qn_lua_memory memory;
  uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* 1.5 stays 1.5 if a script calls os.setlocale */
  qn__leash_start();                                   /* where no process can be started, what needs one says so */
  catch_signals();
  lua_State *L = qn__lua_state_new(&memory);
  if (!L) return fail("out of memory");
  lua_pushcfunction(L, handler);
  lua_pushcfunction(L, protected_main);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 1, 1, 1) ? fail(lua_tostring(L, -1)) : (int)lua_tointeger(L, -1);
  if (fflush(stdout) || ferror(stdout)) {
    fprintf(stderr, "quernel: standard output: %s\n", strerror(errno));
    status = status ? status : 1;
  }
  lua_close(L);
  return status;
}
