# Reads of a file on a disk through its buffer.

from io import BufferedReader as OriginalBufferedReader

cdef object read_of_buffer = OriginalBufferedReader.read

cdef object RawReader = None


def set_buffer_names(*, reader_class):
    global RawReader
    RawReader = reader_class


@cython.binding(True)
def read_through(self, size=-1, /):
    cdef Fiber fiber = _here()
    cdef PyObject *before
    raw = self.raw if fiber is not None and type(self) is RawReader else None
    if type(raw) is not RawFile or raw.kind is not DISK:
        return readable_parts["vthreads._calls.files.buffers._Reading.read"](self, size)
    # A finalizer may read another file in the middle, so restore what the outer call has set.
    before = fiber._reads_through
    fiber._reads_through = <PyObject *>raw
    try:
        got = read_of_buffer(self, size)
    finally:
        fiber._reads_through = before
    if got is not None and len(got) == size or not raw.starved:
        return got
    if size is None or size < 0:
        return self._collect(got, type(self)._read_all, -1)
    return self._collect(got, type(self)._read, size)
