/* io_fit.h - a .safetensors file from a header whose lengths and offsets are made to fit, so that shapes and types can
 * go wrong one at a time, and dialects get to see them. */
#ifndef IO_FIT_H
#define IO_FIT_H
#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

/* Write the tensors of `header`, which is changed, with `data` repeated as often as it takes. A tensor without a
 * sensible type and shape, or of more than 64 KiB, gets no bytes. The program exits with 2 if it cannot write. */
void io_fit(const char *path, cJSON *header, const uint8_t *data, size_t bytes);
#endif
