#include <string.h>

/* Whether `globals` are those of a module of this package. */
static int vt_is_own(PyObject *globals) {
    static PyObject *key = NULL;
    if (key == NULL && (key = PyUnicode_InternFromString("__name__")) == NULL) { PyErr_Clear(); return 0; }
    PyObject *name = PyDict_GetItemWithError(globals, key);
    const char *text = name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    if (text == NULL) { PyErr_Clear(); return 0; }
    return strncmp(text, "vthreads", 8) == 0 && (text[8] == '\0' || text[8] == '.');
}
/* Code object and instruction of the innermost Python frame outside this package; returns 0 if there is none. */
static int vt_place_outside(PyObject **code, int *instruction) {
    PyFrameObject *frame = PyEval_GetFrame();
    Py_XINCREF(frame);
    while (frame != NULL) {
        PyObject *globals = PyFrame_GetGlobals(frame);
        int is_own = vt_is_own(globals);
        Py_DECREF(globals);
        if (!is_own) {
            *code = (PyObject *)PyFrame_GetCode(frame);
            *instruction = PyFrame_GetLasti(frame);
            Py_DECREF(frame);
            return 1;
        }
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    return 0;
}
/* The instruction of the innermost Python frame as a number, as `instruction_number` computes it. */
static unsigned long long vt_instruction(void) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    unsigned long long number = ((unsigned long long)(uintptr_t)code << 17) + (unsigned)PyFrame_GetLasti(frame);
    Py_DECREF(code);
    return number;
}
