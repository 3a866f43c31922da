# The idents of new threads.

from vthreads._core.idents import fresh_idents

# The rest of the present block of idents.
cdef object idents = iter(())


# Repeats `next_ident`.
cdef inline object _next_ident():
    global idents
    ident = next(idents, None)
    while ident is None:
        idents = fresh_idents(idents)
        ident = next(idents, None)
    return ident
