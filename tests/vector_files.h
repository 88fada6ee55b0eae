/* vector_files.h - a test vector as the file that its tool would have written. */
#ifndef VECTOR_FILES_H
#define VECTOR_FILES_H
#include <cjson/cJSON.h>

/* A folder for the files, in memory if possible, and its removal. The program exits with 2 if it cannot write. */
void vector_begin(void);
void vector_end(void);

/* Write the vector: a .gguf of one tensor, or a .safetensors with a config.json beside it. Returns the path. */
const char *vector_write(const cJSON *v);

extern char vector_config[]; /* path of that config.json, which exists only for .safetensors */

/* A JSON file, and the list of vectors in it. NULL if it cannot be read. The root is freed with cJSON_Delete. */
cJSON *vector_file(const char *name);
const cJSON *vector_list(const cJSON *root);
#endif
