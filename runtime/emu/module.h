/* module.h - what is kept of a PTX text: its code, its constants, its functions and variables. */
#ifndef QN_EMU_MODULE_H
#define QN_EMU_MODULE_H
#include "insn.h"
#include "space.h"
#include "special.h"

/* A row that is filled when a warp starts. */
typedef struct constant {
  uint64_t value;
  uint32_t row;
  uint8_t width, special; /* special: 0 plain, 1 relative to the kernel's dynamic shared memory */
} constant;

typedef struct function {
  struct function *next;
  qn_emu_kernel kernel;
  qn_emu_module *module;
  bool entry, defined;
  uint32_t first, nargs, nrets, dynamic; /* dynamic: offset of dynamic shared memory */
  struct formal {
    char name[96];
    uint32_t local, size;
  } * args, *rets;     /* of a .func: where its parameters live in local memory */
  uint32_t return_row; /* u32 per lane: where to go on after return */
} function;

typedef struct call {
  function *f;
  const uint32_t *args, *rets; /* local memory of the caller's */
} call;

typedef struct loc {
  uint32_t file, line;
} loc;

struct qn_emu_module {
  qn_emu *device;
  qn_emu_module *next;
  char *text;
  const char **lines;
  uint32_t nlines;
  struct arena *arena;
  insn *code;
  uint32_t ncode, code_cap;
  constant *constants;
  uint32_t nconstants, constants_cap;
  uint32_t specials[SPECIALS]; /* rows of those that the text names; 0: it does not */
  uint32_t file_bytes;         /* of a register file */
  uint32_t local_bytes;        /* per lane */
  uint32_t shared_bytes;       /* of module-scope variables */
  loc *locs;
  uint32_t nlocs, locs_cap;
  char **files;
  uint32_t nfiles;
  function *functions;
  int nkernels;
  const function **kernels;
  const char **watched;         /* names of the registers of wgmma, by number from 1 (watch.h) */
  uint32_t nproducts, nwatched; /* numbers of those, of all */
  cluster *kept;                /* of launches that have ended, to be used by the next (cluster.h) */
  void (*free_kept)(qn_emu_module *);
  struct variable {
    struct variable *next;
    const char *name;
    block *block;
  } * variables;
};

void *qn__emu_arena(qn_emu_module *m, size_t bytes); /* zeroed; NULL when out of memory */
#endif
