/* store_file.h - the files of a store: whole or not there, and recognised when damaged. What a folder of them means is
 * store.c's matter. */
#ifndef QN_STORE_FILE_H
#define QN_STORE_FILE_H
#include "quernel.h"
#include <cjson/cJSON.h>
#include <limits.h>
#include <stdbool.h>

#define QN_STORE_SCHEMA 2 /* of entries and of what the environment's hash is made of */

/* Write a file of a folder, which is made if it is not there, in place of whatever has its name (file.h). */
qn_status qn__store_write(const char *folder, const char *name, const void *data, size_t size);

/* The text of an entry, freed with cJSON_free: {schema, key, sum, value}, `sum` being the hash of key and value. NULL:
 * no memory. */
char *qn__entry_print(const char *key, const cJSON *value);

/* The value of the entry at `path`: NULL if the file is not there, torn, of another schema, damaged, another's than
 * `key` or, with key NULL, not where its key belongs. The caller deletes it. found_key, if not NULL, gets the entry's
 * key to be freed, or NULL. Only QN_E_NOMEM is a failure: a want of memory is no damage. */
qn_status qn__entry_read(const char *path, const char *key, char **found_key, cJSON **value);

/* Is at `path` an entry as an earlier version of this program wrote it? It is not damaged; nobody reads it any more. */
bool qn__entry_older(const char *path);

/* "HASH.json" of a key. */
void qn__entry_name(const char *key, char out[40]);

/* Hash of the bytes of a file in hexadecimal; false if it cannot be read. */
bool qn__file_hash(const char *path, char out[33]);
#endif
