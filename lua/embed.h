/* embed.h - the Lua files that the tool and the module carry: generator, templates, verbs (made by gen/embed.cmake). */
#ifndef QN_EMBED_H
#define QN_EMBED_H
#include <stddef.h>

typedef struct qn_embedded {
  const char *name; /* path below the source tree: "templates/formats/int4.lua" */
  const char *text; /* zero-terminated beyond its size */
  size_t size;
} qn_embedded;

extern const qn_embedded qn__embedded[]; /* sorted by name */
extern const size_t qn__embedded_count;
#endif
