/* Calls and new objects, without the code that Cython generates around them. */

/* A new object of `type` as its tp_new makes it, without its __init__. */
static PyObject *vt_new(PyObject *type) {
    static PyObject *nothing = NULL;
    if (nothing == NULL && (nothing = PyTuple_New(0)) == NULL) return NULL;
    return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, nothing, NULL);
}

/* Calls a function or a method. Returns NULL with an exception set. Declared without an exception value, so Cython does
   not check the result. Not by PyObject_Vectorcall, which would keep its frame on the C stack of every thread. */
static PyObject *vt_call(PyObject *function, PyObject *arguments, PyObject *keywords) {
    if (keywords != Py_None) return PyObject_Call(function, arguments, keywords);
    return PyVectorcall_Function(function)(
        function, ((PyTupleObject *)arguments)->ob_item, (size_t)PyTuple_GET_SIZE(arguments), NULL);
}
/* Not inlined: its array would be on the C stack of every thread, which is copied at each switch. */
static __attribute__((noinline)) PyObject *vt_call_in_a_frame(PyObject *caller, PyObject *function, PyObject *arguments, PyObject *keywords) {
    PyObject *given[] = {function, arguments, keywords};
    return PyObject_Vectorcall(caller, given, 3, NULL);
}
static int vt_failed(void) { return -1; }
/* Whether `check_function` accepts `function`; 0 for uncommon types, which it must check itself. */
static int vt_does_work(PyObject *function) {
    if (PyMethod_Check(function)) function = PyMethod_GET_FUNCTION(function);
    if (PyFunction_Check(function)) {
        PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
        return !(code->co_flags & (CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR));
    }
    /* A metaclass may define `__call__`, which may be a coroutine function: leave such a class to `check_function`. */
    return PyCFunction_Check(function) || (PyType_Check(function) && Py_TYPE(function)->tp_call == PyType_Type.tp_call);
}
