# The context of `decimal`, copied for a new thread.

from vthreads._core.contexts import decimal_variable as find_decimal_variable

# The variable of `decimal`, found when a thread is spawned after its import.
cdef object decimal_variable = None


# Repeats `inherited_context`.
cdef int _renew_decimal(context) except -1:
    """Copy the decimal context of the spawning thread into `context`, if it has one."""
    global decimal_variable
    if decimal_variable is None:
        decimal_variable = find_decimal_variable()
    parents = None if decimal_variable is None else decimal_variable.get(None)
    if parents is not None:
        context.run(decimal_variable.set, parents.copy())
    return 0
