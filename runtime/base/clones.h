/* clones.h - one function for several instruction sets.
 *
 * A function marked QN__CLONES is compiled several times, and the loader takes the best that this CPU runs. What it
 * calls is inlined into it if it is marked QN__INLINE. */
#ifndef QN_CLONES_H
#define QN_CLONES_H

#if defined __has_feature
#define QN__HAS(feature) __has_feature(feature)
#else
#define QN__HAS(feature) 0
#endif

/* Sanitizers are not ready yet when the loader chooses. Levels of x86-64 are told by what the CPU can do; names of
 * architectures would be told by its model. */
#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ &&                             \
    !QN__HAS(address_sanitizer) && !QN__HAS(thread_sanitizer)
#define QN__CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define QN__CLONES
#endif
#define QN__INLINE static inline __attribute__((always_inline))

#endif
