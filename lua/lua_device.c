/* lua_device.c - the machines that are here, as tables. */
#include "architecture.h"
#include "bind.h"
#include "device.h"
#include "driver.h"

/* Push what is known of a device. [-0, +1, m] */
static void push_info(lua_State *L, const qn_device_info *d) {
  lua_newtable(L);
  qn__lua_set_text(L, "name", d->name);
  qn__lua_set_text(L, "target", d->target);
  qn__lua_set_text(L, "arch", d->arch);
  qn__lua_set_text(L, "product", d->product);
  qn__lua_set_text(L, "driver", d->driver);
  qn__lua_set_integer(L, "threads", d->threads);
  static const char *const level[] = {"l1", "l2", "l3"};
  for (int i = 0; i < 3; i++) qn__lua_set_integer(L, level[i], d->cache[i]);
  qn__lua_set_integer(L, "sm", d->sm);
  qn__lua_set_integer(L, "sms", d->sms);
  qn__lua_set_integer(L, "smem", d->smem);
  qn__lua_set_integer(L, "regs", d->regs);
  qn__lua_set_integer(L, "smem_sm", d->smem_sm);
  qn__lua_set_integer(L, "threads_sm", d->threads_sm);
  qn__lua_set_integer(L, "ctas_sm", d->ctas_sm);
  qn__lua_set_flag(L, "timed", d->timed != 0);
}

/* device(name or nil) -> info, or nil, message, code */
static int device(lua_State *L) {
  const char *name = luaL_optstring(L, 1, NULL);
  qn_device *d = NULL;
  qn_status s = qn__device_open(NULL, name, &d);
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn_device_info info = d->info;
  qn__device_close(d);
  push_info(L, &info);
  return 1;
}

/* architecture(name) -> what a GPU of it offers, or nil, message, code */
static int architecture(lua_State *L) {
  const qn_architecture *a;
  char suffix;
  const char *name = luaL_checkstring(L, 1);
  qn_status s = qn__architecture_named(name, &suffix, &a);
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn_device_info info = {.target = "cuda",
                         .sm = a->sm,
                         .sms = (int)a->multiprocessors,
                         .smem = a->shared_block,
                         .regs = QN_SM_REGISTERS,
                         .smem_sm = a->shared_sm,
                         .threads_sm = (int)a->threads_sm,
                         .ctas_sm = (int)a->blocks_sm};
  snprintf(info.name, sizeof info.name, "%s", name);
  snprintf(info.arch, sizeof info.arch, "%s", name);
  push_info(L, &info);
  return 1;
}

void qn__lua_device(lua_State *L) {
  static const luaL_Reg functions[] = {{"device", device}, {"architecture", architecture}, {NULL, NULL}};
  qn__device_provide("emu:", qn__emu_device_open);
  luaL_setfuncs(L, functions, 0);
}
