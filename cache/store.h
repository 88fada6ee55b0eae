/* store.h - the working directory of artifacts, evidence and plans.
 *
 * One file per entry, self-describing JSON (artifacts: the compiler's bytes), written to a temporary name, fsynced and
 * renamed. No locks: losing a race is normal, an invalid entry is a miss, never an error. Works on NFS.
 *
 *   ROOT/ENV/env.json               what the environment's hash is made of
 *   ROOT/ENV/KIND/HASH.json         an entry: {schema, key, sum, value}; HASH is that of the key
 *   ROOT/ENV/artifact/HASH.json     by the hash of the variant: resources, or why it does not compile
 *   ROOT/ENV/artifact/IMAGE.bin     the compiled image, by its own hash; .ptx: the PTX of the same compilation
 *   ROOT/ENV/journal/...            open work of running tuners
 */
#ifndef QN_STORE_H
#define QN_STORE_H
#include "artifact.h"
#include "device.h"
#include <cjson/cJSON.h>
#include <limits.h>

typedef struct qn_store qn_store;

#define QN_STORE_POLICY "cold, marked" /* how timings are taken: weights cold; disturbed ones are marked */

/* ROOT: `asked`, else $QUERNEL_CACHE, else $XDG_CACHE_HOME/quernel, else ~/.cache/quernel; without HOME the password
 * database says where that is. NULL and "" are not set; XDG_CACHE_HOME and HOME count only if absolute. QN_E_IO: there
 * is no home; QN_E_LIMIT: the path is too long. */
qn_status qn__store_root(const char *asked, char out[PATH_MAX]);

/* Open or make the store for a device at qn__store_root(root). What a store holds is run, so QN_E_IO, too, for a ROOT
 * that every user may write and, unless it was asked for by `root` or $QUERNEL_CACHE, for another user's. Behind ROOT
 * are read, never written, $QUERNEL_CACHE_SYSTEM and what is installed with the project: an entry is taken from the
 * first of the three that has it whole. `policy` names how timings are taken (QN_STORE_POLICY). QN_E_IO with the path
 * and the reason: the store cannot be written. A store may be used by any number of threads and processes. */
qn_status qn__store_open(const char *root, const qn_device_info *device, const char *compiler, const char *policy,
                         qn_store **out);
/* What a store for the device would be of, as in env.json, and the hash of it; to be freed with cJSON_Delete. NULL: no
 * memory. */
cJSON *qn__store_environment(const qn_device_info *device, const char *compiler, const char *policy, char hash[33]);
void qn__store_close(qn_store *s);             /* NULL is accepted */
const char *qn__store_path(const qn_store *s); /* ROOT/ENV, owned by the store */

/* An artifact by the hash of its variant. A remembered failure is an artifact with *status != QN_OK, its reason in
 * `why` (whylen bytes) and no image. False: not known, or damaged. *out is freed with qn__artifact_free. put copies;
 * QN_E_IO (a full disk) leaves nothing half-written. */
bool qn__store_artifact_get(qn_store *s, const char *hash, qn_status *status, qn_artifact *out, char *why,
                            size_t whylen);
qn_status qn__store_artifact_put(qn_store *s, const char *hash, qn_status status, const char *why,
                                 const qn_artifact *a);

/* JSON entries: `kind` is "evidence" or "plan", key any text (its hash is the file's name). get returns NULL on a miss,
 * else a value to be freed with cJSON_Delete. put embeds schema, key and checksum and replaces what is there. each
 * visits every valid entry once, in no order, until it returns non-zero. */
cJSON *qn__store_get(qn_store *s, const char *kind, const char *key);
qn_status qn__store_put(qn_store *s, const char *kind, const char *key, const cJSON *value);
qn_status qn__store_each(qn_store *s, const char *kind, int (*each)(void *ud, const char *key, const cJSON *value),
                         void *ud);
#endif
