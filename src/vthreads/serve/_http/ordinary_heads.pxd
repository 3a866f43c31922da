# Types for `ordinary_heads.py`, where it is compiled.

cimport cython

from .heads cimport Head
from .recent cimport Recent

cdef Recent _lines
cdef dict USUAL_VALUES
cdef bytes BLANKS
cdef Py_ssize_t COLON, SPACE

cpdef note_name(bytes written, bytes name)

@cython.locals(line=bytes, rest=bytes, target=bytes, method=bytes, lines=list, fields=list, field=tuple)
cpdef Head ordinary_head(bytes raw)

@cython.locals(colon=Py_ssize_t, name=bytes, value=bytes)
cdef tuple _field_of(bytes line)
