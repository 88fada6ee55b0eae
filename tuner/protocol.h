/* protocol.h - what supervisor and worker say to each other: a line of JSON each way, over the worker's fd 0 and 1. A
 * request has a number, "id", which its answer repeats.
 *
 *   worker, first        {"info": {target, arch, product, threads, cache, …}}   or {"status", "why"}
 *   before an answer     {"step","limit"}            what comes now, and how many seconds it may take; any number
 *   {"op":"verify","case":C}                 {"status","why","error"}           small shapes, whole: see verify.h
 *   {"op":"open","slot":I,"case":C,"m":M}    {"status","why","error","bytes"}   the full shape: an exact draw, all of
 *                                                                               Y; a random one, at seeded columns
 *   {"op":"time","slot":I,"reps":R}          {"status","seconds":[…],"bandwidth":[…],"thrown","disturbed"}
 *   {"op":"check","slot":I}                  {"status","why"}                   is it still right, after timing?
 *   {"op":"count","case":C,"m":M}            as open, and "counters":{…}        what a call on the interpreter did
 *   {"op":"rows","slot":I,"case":C,"m":M}    {"status","why"}                   as open; a row's bits at M, M/2, M/4…
 *   {"op":"close"}                           {"status"}                         every slot
 *   {"op":"blas","n":N,"k":K,"m":M}          as time, and "by"                  OpenBLAS, cuBLAS; QN_E_DEVICE: neither
 *
 * "open" and "rows" of a stack may have "share":[…], a number for each expert: so the rows are shared out (call.h).
 *
 * "thrown" is how many samples were void, "disturbed" how many were kept although the machine was busy (sample.h).
 *
 * A slot holds one kernel with its weights, enough copies of them to be cold. A worker that dies, hangs or says nothing
 * sensible is replaced; see supervise.h. */
#ifndef QN_PROTOCOL_H
#define QN_PROTOCOL_H
#include "device.h"
#include <cjson/cJSON.h>

#define QN_SLOTS 16
enum { QN_WORKER_NOMEM = 86 }; /* exit status of a worker that had no memory to begin, or to read a request */
cJSON *qn__info_to_json(const qn_device_info *d);
qn_status qn__info_from_json(const cJSON *j, qn_device_info *out);
#endif
