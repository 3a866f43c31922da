# `os.write` of a few bytes to pipes in blocking mode. All others, and writes that must wait, go to the Python version.


# Repeats `write_some`.
@cython.binding(True)
def os_write(fd, data, /):
    cdef Fiber fiber = _here()
    cdef Py_buffer view
    cdef Py_ssize_t count = -1
    cdef int number = -1
    # A checkpoint that is due is made by the Python version.
    if fiber is not None and not fiber._pending and fiber._scheduler.now() < fiber._scheduler.slice_end:
        number = _pipe(fd)
    if number >= 0 and type(data) is bytes and len(<bytes>data) <= VT_PIPE_BUF:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        # A pipe takes so few bytes all or none.
        count = vt_write_now(number, <char *>view.buf, view.len)
        PyBuffer_Release(&view)
    return count if count >= 0 else readable_parts["vthreads._calls.files.writing.write"](fd, data)
