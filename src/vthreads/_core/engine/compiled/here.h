/* The scheduler of this OS thread, in a thread-local variable: reading it is one load, a look-up would be a call. */

#if defined(_MSC_VER)
#define VT_THREAD __declspec(thread)
#else
#define VT_THREAD __thread
#endif

/* Borrowed: the registry of carriers keeps it alive. */
static VT_THREAD PyObject *vt_here = NULL;
