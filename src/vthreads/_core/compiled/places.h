/* Code object, globals and instruction of the innermost Python frame; returns 0 if there is none. */
static int vt_place(PyObject **code, PyObject **globals, int *instruction) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) return 0;
    *code = (PyObject *)PyFrame_GetCode(frame);
    *globals = PyFrame_GetGlobals(frame);
    *instruction = PyFrame_GetLasti(frame);
    return 1;
}
/* Its instruction as a number, as `instruction_number` computes it. */
static unsigned long long vt_instruction(void) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    unsigned long long number = ((unsigned long long)(uintptr_t)code << 17) + (unsigned)PyFrame_GetLasti(frame);
    Py_DECREF(code);
    return number;
}
