# The calls that a buffer makes of its raw file, if the file is on a disk, and the end of a raw file.

from io import FileIO as OriginalFile

cdef object fileno_of_file = OriginalFile.fileno
cdef object close_of_file = OriginalFile.close

cdef object RawFile = None
cdef object forget_fd = None


def set_raw_names(*, file_class, forget):
    global RawFile, forget_fd
    RawFile, forget_fd = file_class, forget


cdef inline bint _is_read_by_buffer(Fiber fiber, raw):
    """Return whether `raw` was called by a buffer whose compiled method `fiber` has called; it left no frame."""
    return fiber is not None and fiber._reads_through == <PyObject *>raw


@cython.binding(True)
def called_by_a_buffer(raw, /):
    if _is_read_by_buffer(_here(), raw):
        return True
    return readable_parts["vthreads._calls.files.raw._called_by_a_buffer"](raw)


@cython.binding(True)
def file_readall(self):
    cdef Fiber fiber = _here()
    if not _is_read_by_buffer(fiber, self):
        return readable_parts["vthreads._calls.files.raw.File.readall"](self)
    whole = self._read_rest_at_once(fiber)
    return self._read_all_at_once(fiber) if whole is None else whole


# Repeats `File._is_due`.
@cython.binding(True)
def rest_at_once(self, thread, /):
    cdef Fiber fiber = thread if isinstance(thread, Fiber) else None
    if (
        fiber is None
        or fiber._pending
        or fiber._scheduler.now() >= fiber._scheduler.slice_end
        or self.kind is not DISK
        or self._warm
        or self._checked
        or self.busy
    ):
        return readable_parts["vthreads._calls.files.raw.File._read_rest_at_once"](self, thread)
    whole = _rest_in_cache(fiber, fileno_of_file(self))
    if whole is not None:
        if self._was_due:
            self._was_due = False
        if self.starved:
            self.starved = False
        self._arrivals += 1
    return whole


# Repeats `forget_fd`.
@cython.binding(True)
def file_close(self):
    if self._finalizing:
        return readable_parts["vthreads._calls.files.raw.File.close"](self)
    if not self.closed and self.closefd:
        fd = fileno_of_file(self)
        if vt_here is not NULL and len(<dict>carriers) == 1:
            (<Scheduler>vt_here).descriptors.forget(fd)
        else:
            forget_fd(fd)
    close_of_file(self)
