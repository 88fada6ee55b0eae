/* range.h - which numbers of tokens a kernel serves, as its template, a case and a plan say it: from `m_min` to
 * `m_max`, 0 for no end. */
#ifndef QN_RANGE_H
#define QN_RANGE_H
#include <stdbool.h>
#include <stdint.h>

/* Does a kernel of m_min .. m_max serve every M of from .. to? */
static inline bool qn__serves(int64_t m_min, int64_t m_max, int64_t from, int64_t to) {
  return from >= m_min && (!m_max || (to && to <= m_max));
}
#endif
