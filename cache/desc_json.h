/* desc_json.h - descriptors (runtime/desc.h) to and from the JSON that the generator writes and the store keeps. */
#ifndef QN_DESC_JSON_H
#define QN_DESC_JSON_H
#include "desc.h"
#include <cjson/cJSON.h>

/* Each reads the members that desc.h shows (others are ignored) and checks the whole as the runtime will:
 * qn__format_check, qn__layout_check for one tile, qn__recipe_check. QN_E_FORMAT says what is wrong. The hash of a
 * layout is that of qn__layout_to_json. A descriptor to be written must be a checked one; the caller deletes what is
 * returned. Any thread. */
qn_status qn__format_from_json(const cJSON *j, qn_format *out);
qn_status qn__layout_from_json(const cJSON *j, const qn_format *f, qn_layout *out);
qn_status qn__recipe_from_json(const cJSON *j, qn_recipe *out);
cJSON *qn__format_to_json(const qn_format *f);
cJSON *qn__layout_to_json(const qn_layout *l, const qn_format *f);
cJSON *qn__recipe_to_json(const qn_recipe *r);
#endif
