/* token_files.h - vectors/tokenizers.json as the files that tokenizers are read from. */
#ifndef TOKEN_FILES_H
#define TOKEN_FILES_H
#include <cjson/cJSON.h>

cJSON *token_vectors(void); /* tokenizers.json; the caller deletes it */

/* Number i of a list ("bpe", "scores") of the vectors; NULL past the last. */
const cJSON *token_vector(const cJSON *vectors, const char *list, int i);

/* The text of a vector's tokenizer.json; the caller frees it. */
char *token_json(const cJSON *vectors, const cJSON *v);

/* Write a GGUF with the keys of a vector's tokenizer and an embedding of all its tokens. */
void token_gguf(const char *path, const cJSON *vectors, const cJSON *v);
#endif
