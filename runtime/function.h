/* function.h - functions of the user's own, by the names that packs know them by. */
#ifndef QN_FUNCTION_H
#define QN_FUNCTION_H
#include "quernel.h"

/* What qn_function_register was given for a name; NULL: nothing. Any thread. */
qn_function qn__function_find(const char *name);
#endif
