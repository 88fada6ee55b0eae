/* absent.c - a build without the interpreter (QUERNEL_EMU=OFF): its devices cannot be opened, and say why. */
#include "driver.h"
#include "fail.h"

qn_status qn__emu_device_open(const qn_allocator *heap, const char *name, qn_device **out) {
  (void)heap;
  *out = NULL;
  return qn__fail(QN_E_DEVICE, "device '%s': this build has no interpreter of PTX (QUERNEL_EMU=OFF)", name);
}

const qn_emu_counters *qn__emu_device_counters(const qn_device *d) {
  (void)d;
  return NULL;
}

const qn_emu_traffic *qn__emu_device_weight(const qn_device *d) {
  (void)d;
  return NULL;
}

const char *qn__emu_kind_word(qn_emu_kind k) {
  (void)k;
  return "?";
}
