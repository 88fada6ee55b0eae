/* protocol.h - what supervisor and worker say to each other: one JSON object a line, a request and its answer.
 *
 *   {"do":"info"}                                    -> {"ok":true,"info":{…}}            qn_device_info
 *   {"do":"verify","case":{…}}                       -> {"ok":true,"error":0.1}           verify.h
 *   {"do":"time","case":{…},"m":16,"rows":256,
 *    "reps":3,"check":true}                          -> {"ok":true,"seconds":[…],"disturbed":0,"error":0,"bits":"…"}
 *   {"do":"stream"}                                  -> {"ok":true,"rate":5e10}           bytes/s, 0: not known
 *   {"do":"dense","n":64,"k":64,"m":16,"reps":10}    -> {"ok":true,"seconds":[…],"by":"…"}
 *
 * A failure is {"ok":false,"status":"QN_E_WRONG","text":"…"}. Before a kernel runs, when all is prepared, the worker
 * says
 * {"begin":true}: the watchdog starts anew. A worker that found a kernel wrong, or the device failing, answers and
 * exits, since its memory can no longer be trusted. */
#ifndef QN_PROTOCOL_H
#define QN_PROTOCOL_H
#include "device.h"
#include <cjson/cJSON.h>

/* One end of the line. */
typedef struct qn_line {
  int in, out;
  char *data;
  size_t used, size;
} qn_line;

void qn__line_fini(qn_line *l); /* frees the buffer; the descriptors are the caller's */

/* Write one object. QN_E_IO: the other side is gone. Never raises SIGPIPE on a socket. */
qn_status qn__line_write(qn_line *l, const cJSON *j);

/* Read one object; the caller frees it. `seconds` < 0: wait for ever. QN_E_LIMIT: nothing whole came in time. QN_E_IO:
 * the other side is gone. QN_E_FORMAT: that was no object. */
qn_status qn__line_read(qn_line *l, double seconds, cJSON **out);

cJSON *qn__info_to_json(const qn_device_info *i);
qn_status qn__info_from_json(const cJSON *j, qn_device_info *out);
qn_status qn__status_from_name(const char *name); /* QN_E_FORMAT if unknown */
#endif
