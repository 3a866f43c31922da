# Types for `heads.py`, where it is compiled.

cdef class Head:
    cdef public str method
    cdef public bytes target, expectation, upgrade
    cdef public bint is_1_1, is_forwarded, is_kept, has_body, keeps_alive
    cdef public list fields, hosts, lengths, codings, options
    cdef public object of_fields, of_head, of_log

    cpdef Head with_line(self, method, target)
