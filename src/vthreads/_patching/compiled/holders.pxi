# The search through the references of all objects, without a list of the references.

cdef extern from "_patching/compiled/holders.h":
    list vt_search_references(list objects, list wanted, bint kinds)


@cython.binding(True)
def referrers(objects, wanted):
    return vt_search_references(objects, list(wanted), False)


@cython.binding(True)
def referents_of_kinds(holders, kinds):
    return vt_search_references(holders, list(kinds), True)
