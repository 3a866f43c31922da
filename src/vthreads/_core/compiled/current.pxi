# Checkpoints of the thread that runs on this OS thread.

cdef extern from "_core/compiled/places.h":
    unsigned long long vt_instruction()
    bint vt_place_outside(PyObject **code, int *instruction)


cdef inline int _check() except -1:
    cdef Fiber fiber = _here()
    if fiber is not None:
        Fiber._check(fiber)
    return 0


@cython.binding(True)
def check_here():
    _check()


@cython.binding(True)
def give_way_here():
    cdef Fiber fiber = _here()
    if fiber is not None:
        Fiber._give_way(fiber)


# Repeats `instruction_number`.
@cython.binding(True)
def instruction_here(int depth):
    if depth > 0:
        return readable_parts["vthreads._core.current.instruction_here"](depth)
    return vt_instruction()


# The type of these functions. Programs spawn some of them: `spawn(sleep, 1)`.
cdef object CompiledFunction = type(check_here)
