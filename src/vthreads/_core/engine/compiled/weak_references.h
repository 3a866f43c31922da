/* Whether the weak reference `owner` refers to `object`. */
static int vt_owns(PyObject *owner, PyObject *object) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = NULL;
    if (PyWeakref_GetRef(owner, &found) < 0) PyErr_Clear();
    Py_XDECREF(found);
    return found == object;
#else
    return PyWeakref_GET_OBJECT(owner) == object;
#endif
}
