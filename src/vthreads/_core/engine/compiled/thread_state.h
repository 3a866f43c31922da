/* The interpreter's state of an OS thread: its context, and whether it is traced. */

static int vt_has_context(void) { return PyThreadState_Get()->context != NULL; }
/* A copy of the context, None for an empty one. */
static PyObject *vt_copy_context(void) {
    PyObject *context = PyThreadState_Get()->context;
    Py_ssize_t count = context == NULL ? 0 : PyObject_Size(context);
    if (count < 0) return NULL;
    if (count == 0) Py_RETURN_NONE;
    return PyContext_CopyCurrent();
}
/* The context itself, created if there is none. */
static PyObject *vt_context(void) {
    PyObject *copy = vt_has_context() ? NULL : PyContext_CopyCurrent();
    if (PyErr_Occurred()) return NULL;
    Py_XDECREF(copy);
    return Py_NewRef(PyThreadState_Get()->context);
}
/* Drop the context. Its values may be freed, which may run any code. */
static void vt_leave_context(void) {
    PyThreadState *state = PyThreadState_Get();
    PyObject *context = state->context;
    state->context = NULL;
    state->context_ver++;
    Py_XDECREF(context);
}
/* Whether fewer than `room` calls are left below the recursion limit, or less than half of a small limit. */
static int vt_lacks_room(int room) {
    PyThreadState *state = PyThreadState_Get();
#if PY_VERSION_HEX < 0x030C0000
    int left = state->recursion_remaining, limit = state->recursion_limit;
#else
    int left = state->py_recursion_remaining, limit = state->py_recursion_limit;
#endif
    return left < room && left < limit / 2;
}
static int vt_is_traced(void) { return PyThreadState_Get()->c_tracefunc != NULL; }
/* Suspend trace and profile functions until they are resumed; returns 0 if there are none and `always` is not set. */
static int vt_suspend_tracing(int always) {
    PyThreadState *state = PyThreadState_Get();
    if (!always && state->c_tracefunc == NULL && state->c_profilefunc == NULL) return 0;
    PyThreadState_EnterTracing(state);
    return 1;
}
static void vt_resume_tracing(void) { PyThreadState_LeaveTracing(PyThreadState_Get()); }
