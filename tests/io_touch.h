/* io_touch.h - ask everything of a model, for fuzzing and damaged files. */
#ifndef IO_TOUCH_H
#define IO_TOUCH_H
#include "quernel_io.h"

/* Open the checkpoint; if that succeeds read every byte of every plane, of every value and name. Returns how many
 * planes there were, -1 if it did not open (with a message, or the program aborts). */
int io_touch(const char *path);
#endif
