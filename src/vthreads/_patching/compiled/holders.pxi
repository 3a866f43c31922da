# The search through the references of all objects, without a list of the references, and their sorting.

from collections import defaultdict

cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(object thing)

cdef extern from "_patching/compiled/holders.h":
    list vt_search_references(list objects, list wanted, bint kinds)


@cython.binding(True)
def referrers(objects, wanted):
    return vt_search_references(objects, list(wanted), False)


@cython.binding(True)
def referents_of_kinds(holders, kinds):
    return vt_search_references(holders, list(kinds), True)


@cython.binding(True)
def sorted_by_type(list objects):
    groups = defaultdict(list)
    cdef list group = None
    cdef PyTypeObject *kind = NULL
    for thing in objects:
        # Objects of one type often follow each other.
        if Py_TYPE(thing) != kind:
            kind = Py_TYPE(thing)
            group = groups[<size_t>kind]
        group.append(thing)
    return groups
