/* The monotonic clock, read without creating a Python float. */

#include <time.h>
#if defined(_WIN32)
static double vt_monotonic(void) { return (double)time(NULL); }
#else
static double vt_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
#endif
/* Whether time.monotonic() reads the same clock. */
#if defined(__linux__)
#define VT_HAS_MONOTONIC 1
#else
#define VT_HAS_MONOTONIC 0
#endif
