/* json.h - JSON (cJSON) that is read with a default, and written whole or not at all.
 *
 * What is added to an object or an array belongs to it. If there is no memory for it, the object is spoiled: it takes
 * more, but neither it nor what holds it can be printed any more (cJSON_Print gives NULL). So whoever builds JSON adds
 * without asking and checks once, at the end. NULL is an object that could not be made: adding to it is no fault, and
 * adding it spoils. */
#ifndef QN_JSON_H
#define QN_JSON_H
#include "quernel.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* The one value that text[0, n) is; the caller's, to be freed with cJSON_Delete.
 * QN_E_FORMAT: malformed; something behind the value; \u0000, at which a C string would end. */
qn_status qn__json_parse(const char *text, size_t n, cJSON **out);

/* A member of an object; NULL if there is none. The name counts letter by letter. */
const cJSON *qn__json_get(const cJSON *object, const char *key);
/* The same as a number or a text, which is the object's; `absent` if it is something else. */
double qn__json_number(const cJSON *object, const char *key, double absent);
int qn__json_int(const cJSON *object, const char *key, int absent); /* the nearest int */
const char *qn__json_text(const cJSON *object, const char *key, const char *absent);

/* ---- Building ---------------------------------------------------------------------------------------------------- */

void qn__json_add(cJSON *object, const char *key, cJSON *item);
void qn__json_add_text(cJSON *object, const char *key, const char *text);
/* What is added is what a reader of the printed text will get: the number, or one an ulp beside it. */
void qn__json_add_number(cJSON *object, const char *key, double number);
void qn__json_add_flag(cJSON *object, const char *key, bool flag);
/* A new array or object, to be filled. */
cJSON *qn__json_add_array(cJSON *object, const char *key);
cJSON *qn__json_add_object(cJSON *object, const char *key);

void qn__json_append(cJSON *array, cJSON *item);
void qn__json_append_number(cJSON *array, double number);
void qn__json_append_text(cJSON *array, const char *text);

/* Can `json` be printed: is it, and all in it, whole? For what is used without being printed. */
bool qn__json_whole(const cJSON *json);
#endif
