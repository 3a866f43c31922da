# The spawn of a member into a group.


@cython.binding(True)
def spawn(self, fn, /, *args, **kwargs):
    cdef ThreadFields thread = _admit_here(self, fn, args, kwargs)
    if thread is None:
        return self._spawn(fn, args, kwargs, True)
    return _started_here(thread)
