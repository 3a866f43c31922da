/* Whether `self.name` is `function` as a method of its class, that no attribute of the object hides. */
#if PY_VERSION_HEX < 0x030D0000
/* Without making the bound method, by a function that Python 3.13 no longer declares for extensions. */
static int vt_is_method(PyObject *self, PyObject *name, PyObject *function) {
    PyObject *found = NULL;
    int is_bound = _PyObject_GetMethod(self, name, &found), is_it;
    if (found == NULL) return -1;
    is_it = is_bound && found == function;
    Py_DECREF(found);
    return is_it;
}
#else
static int vt_is_method(PyObject *self, PyObject *name, PyObject *function) {
    PyObject *found = PyObject_GetAttr(self, name);
    int is_it;
    if (found == NULL) return -1;
    is_it = PyMethod_Check(found) && PyMethod_GET_SELF(found) == self && PyMethod_GET_FUNCTION(found) == function;
    Py_DECREF(found);
    return is_it;
}
#endif

/* Whether the class of `self` has `function` under that name. */
static int vt_class_has(PyObject *type, PyObject *name, PyObject *function) {
    return _PyType_Lookup((PyTypeObject *)type, name) == function;
}
