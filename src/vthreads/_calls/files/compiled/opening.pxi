# `open` of files on a disk that are only read. All others, and uncommon arguments, go to the Python version.

from io import DEFAULT_BUFFER_SIZE as _DEFAULT_BUFFER_SIZE
from io import TextIOWrapper
from sys import flags as interpreter_flags
from sys import version_info

cdef extern from "_calls/files/compiled/opening.h":
    int vt_initialize(object base, object self, tuple arguments) except -1

cdef extern from "Python.h":
    object PyOS_FSPath(object path)

cdef Py_ssize_t DEFAULT_BUFFER_SIZE = _DEFAULT_BUFFER_SIZE
# Since Python 3.14, a buffer is at least as large as the default, and at most this large.
cdef Py_ssize_t LARGEST_BUFFER = 8 << 20
cdef bint BOUNDS_BUFFERS = version_info >= (3, 14)
cdef bint WARNS_OF_ENCODING = interpreter_flags.warn_default_encoding

cdef object layers_over_raw = None
cdef object original_open = None


def set_opening_names(*, layers_over, original):
    global layers_over_raw, original_open
    layers_over_raw, original_open = layers_over, original


# Repeats `_is_odd`, `format_if_it_waits` and `is_in_memory`.
@cython.binding(True)
def open_file(
    file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
):
    cdef bint is_text
    cdef long long device
    is_common = type(mode) is str and type(buffering) is int and buffering == -1 and opener is None
    if is_common and mode == "rb":
        is_text = False
        is_common = encoding is errors is newline is None
    else:
        is_text = True
        is_common = is_common and mode in ("r", "rt") and not (encoding is None and WARNS_OF_ENCODING)
    if is_common:
        if type(file) is not str and hasattr(file, "__fspath__"):
            file = PyOS_FSPath(file)
        if type(file) is str:
            device = _device_at(file)
            in_memory = in_memory_by_device.get(device) if device >= 0 else None
            if in_memory is True:
                return original_open(file, mode, -1, encoding, errors, newline, closefd)
            if in_memory is False:
                return _open_on_disk(file, mode, is_text, encoding, errors, newline, closefd, device)
    return readable_parts["vthreads._calls.files.opening.open"](
        file, mode, buffering, encoding, errors, newline, closefd, opener
    )


# Repeats `File.__init__`, `kind_of`, `_layers_over` and `_buffer_of`.
cdef object _open_on_disk(str path, str mode, bint is_text, encoding, errors, newline, closefd, long long device):
    raw = vt_new(RawFile)
    vt_initialize(OriginalFile, raw, (path, "r", closefd))
    try:
        # The name may mean another file by now, so check the descriptor. That does not wait: the opening has just
        # fetched the status of the file, also from a server.
        fd = fileno_of_file(raw)
        if vt_device_of_regular(fd, NULL) != device:
            raw.kind = kind_of_fd(fd)
            return layers_over_raw(raw, mode, -1, encoding, errors, newline)
        raw.kind = DISK
        buffer = RawReader(raw, _buffer_size(raw))
        if not is_text:
            return buffer
        text = TextIOWrapper(buffer, encoding, errors, newline, False)
        text.mode = mode
        return text
    except BaseException:  # raised again: no caller has the file yet, so close its descriptor first
        raw.close()
        raise


# Repeats `_buffer_size`.
cdef Py_ssize_t _buffer_size(raw) except -1:
    cdef Py_ssize_t block = raw._blksize
    if BOUNDS_BUFFERS:
        return max(min(block, LARGEST_BUFFER), DEFAULT_BUFFER_SIZE)
    return block if block > 1 else DEFAULT_BUFFER_SIZE
