# The device of a regular file, without an object for its status.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cdef extern from "_calls/files/compiled/kinds.h":
    long long vt_device_of_regular(int fd, const char *path) nogil

cdef object DISK = None
cdef object kind_of_fd = None
# Whether a file system uses neither a disk nor a server, by device number.
cdef dict in_memory_by_device = None


def set_kind_names(*, disk, kind_of, in_memory):
    global DISK, kind_of_fd, in_memory_by_device
    DISK, kind_of_fd, in_memory_by_device = disk, kind_of, in_memory


@cython.binding(True)
def device_of_regular(file):
    if type(file) is str:
        return _device_at(<str>file)
    if type(file) is not int:
        return readable_parts["vthreads._calls.files.kinds.device_of_regular"](file)
    return vt_device_of_regular(file, NULL) if 0 <= file <= 0x7FFFFFFF else -1


cdef long long _device_at(str name) except? -2:
    cdef const char *path
    cdef Py_ssize_t size = 0
    cdef long long device
    if not name.isascii() or "\0" in name:
        return readable_parts["vthreads._calls.files.kinds.device_of_regular"](name)
    # ASCII is the same in every encoding of file names.
    path = PyUnicode_AsUTF8AndSize(name, &size)
    with nogil:
        device = vt_device_of_regular(-1, path)
    return device
