/* The initialization of an object as one of a base class of its type. */
static int vt_initialize(PyObject *base, PyObject *self, PyObject *arguments) {
    return ((PyTypeObject *)base)->tp_init(self, arguments, NULL);
}
