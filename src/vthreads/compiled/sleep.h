/* A builtin function with the name of time.sleep that calls `call`. */
static PyMethodDef vt_sleep_def = {"sleep", NULL, METH_O, NULL};
static PyObject *vt_time_sleep(PyObject *(*call)(PyObject *, PyObject *)) {
    PyObject *module = PyUnicode_FromString("time"), *function;
    if (module == NULL) return NULL;
    vt_sleep_def.ml_meth = call;
    function = PyCFunction_NewEx(&vt_sleep_def, NULL, module);
    Py_DECREF(module);
    return function;
}
