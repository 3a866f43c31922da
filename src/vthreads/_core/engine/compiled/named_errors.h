/* Wrong arguments of a compiled function that has the name of another one.

   The C code of a function contains the name that it was compiled under, and the errors of wrong arguments begin with
   it. A program does not know that name. So such a call goes on to the readable version, which has the same parameters
   and raises the error in the words of the program's function. A function that replaces one in C has `_refuse`, which
   raises the error of that one; see `vthreads._patching.refusals`. */

/* The way into each compiled function with parameters; all have the same. */
static vectorcallfunc vt_enter = NULL;

/* Whether the exception that is set is a TypeError of wrong arguments, raised by `function` itself. */
static int vt_refused(PyObject *function) {
    PyObject *kind, *error, *traceback, *text = NULL;
    const char *name = ((PyCFunctionObject *)function)->m_ml->ml_name, *words = NULL;
    size_t length = strlen(name);
    int refused = 0;
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return 0;
    PyErr_Fetch(&kind, &error, &traceback);
    PyErr_NormalizeException(&kind, &error, &traceback);
    if (Py_TYPE(error) == (PyTypeObject *)PyExc_TypeError) text = PyObject_Str(error);
    if (text != NULL) words = PyUnicode_AsUTF8(text);
    refused = words != NULL && strncmp(words, name, length) == 0 && strncmp(words + length, "() ", 3) == 0;
    PyErr_Clear();
    Py_XDECREF(text);
    PyErr_Restore(kind, error, traceback);
    return refused;
}

/* The attribute `name` of `function`; NULL without an error if it has none. */
static PyObject *vt_attribute(PyObject *function, const char *name) {
    PyObject *value = PyObject_GetAttrString(function, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) PyErr_Clear();
    return value;
}

/* Replace the exception that is set by the one that `_refuse` of `function` raises for these arguments. */
static int vt_refuse(PyObject *function, int is_binding, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *kind, *error, *traceback, *refuse, *any, *answer = NULL;
    PyErr_Fetch(&kind, &error, &traceback);
    refuse = vt_attribute(function, "_refuse");
    any = refuse == NULL ? NULL : vt_attribute(function, "_refuses_any");
    if (any != NULL && (is_binding || any == Py_True))
        answer = PyObject_Vectorcall(refuse, args, PyVectorcall_NARGS(count), names);
    Py_XDECREF(refuse);
    Py_XDECREF(any);
    if (PyErr_Occurred()) {
        Py_XDECREF(kind);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        return 1;
    }
    Py_XDECREF(answer);
    PyErr_Restore(kind, error, traceback);
    return 0;
}

/* Answer a call of `function` with wrong arguments, whose exception is set: raise the error of its namesake. */
static __attribute__((noinline)) PyObject *vt_answer_refused(
    PyObject *function, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *answer, *readable, *kind, *error, *traceback;
    int is_binding;
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError)
        && !PyErr_ExceptionMatches(PyExc_OverflowError))
        return NULL;
    is_binding = vt_refused(function);
    if (vt_refuse(function, is_binding, args, count, names) || !is_binding) return NULL;
    PyErr_Fetch(&kind, &error, &traceback);
    readable = vt_attribute(function, "__wrapped__");
    if (readable == NULL) {
        PyErr_Restore(kind, error, traceback);
        return NULL;
    }
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    answer = PyObject_Vectorcall(readable, args, PyVectorcall_NARGS(count), names);
    Py_DECREF(readable);
    return answer;
}

static PyObject *vt_enter_named(PyObject *function, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *answer = vt_enter(function, args, count, names);
    return answer != NULL ? answer : vt_answer_refused(function, args, count, names);
}

/* Let calls of `function` with wrong arguments go on to its `_refuse` or `__wrapped__`; return whether they do. */
static int vt_refuse_as_readable(PyObject *function) {
    PyCFunctionObject *compiled = (PyCFunctionObject *)function;
    if (!(compiled->m_ml->ml_flags & METH_FASTCALL)) return 0;
    if (compiled->vectorcall == vt_enter_named) return 1;
    if (vt_enter == NULL) vt_enter = compiled->vectorcall;
    if (compiled->vectorcall == vt_enter) compiled->vectorcall = vt_enter_named;
    return compiled->vectorcall == vt_enter_named;
}
