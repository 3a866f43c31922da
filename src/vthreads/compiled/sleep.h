/* A builtin function with the name of time.sleep. It calls `yields` for the integer 0, else `sleeps`, and leaves its frame
   before either call: each switch copies what is on the C stack. */
static PyObject *vt_zero, *(*vt_yields)(void), *(*vt_sleeps)(PyObject *, PyObject *);
static PyObject *vt_sleep_call(PyObject *module, PyObject *seconds) {
    return seconds == vt_zero ? vt_yields() : vt_sleeps(module, seconds);
}
static PyMethodDef vt_sleep_def = {"sleep", vt_sleep_call, METH_O, NULL};
static PyObject *vt_time_sleep(PyObject *(*sleeps)(PyObject *, PyObject *), PyObject *(*yields)(void)) {
    PyObject *module, *function;
    vt_sleeps = sleeps;
    vt_yields = yields;
    /* CPython has one object for each small integer. */
    if ((vt_zero = PyLong_FromLong(0)) == NULL || (module = PyUnicode_FromString("time")) == NULL) return NULL;
    function = PyCFunction_NewEx(&vt_sleep_def, NULL, module);
    Py_DECREF(module);
    return function;
}
