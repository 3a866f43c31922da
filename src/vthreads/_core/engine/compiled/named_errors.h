/* Wrong arguments of a compiled function that has the name of another one.

   The C code of a function contains the name that it was compiled under, and the errors of wrong arguments begin with
   it. A program does not know that name. So such a call goes on to the readable version, which has the same parameters
   and raises the error in the words of the program's function. */

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

static PyObject *vt_enter_named(PyObject *function, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *answer = vt_enter(function, args, count, names), *readable;
    if (answer != NULL || !vt_refused(function)) return answer;
    PyErr_Clear();
    readable = PyObject_GetAttrString(function, "__wrapped__");
    if (readable == NULL) return NULL;
    answer = PyObject_Vectorcall(readable, args, PyVectorcall_NARGS(count), names);
    Py_DECREF(readable);
    return answer;
}

/* Let calls of `function` with wrong arguments go on to its `__wrapped__`. */
static void vt_refuse_as_readable(PyObject *function) {
    PyCFunctionObject *compiled = (PyCFunctionObject *)function;
    if (!(compiled->m_ml->ml_flags & METH_FASTCALL) || compiled->vectorcall == vt_enter_named) return;
    if (vt_enter == NULL) vt_enter = compiled->vectorcall;
    if (compiled->vectorcall == vt_enter) compiled->vectorcall = vt_enter_named;
}
