/* Searches through references, by the functions with which types show their references to the garbage collector.
 * No code of the objects runs. */

/* A set of addresses, with open addressing. It is never more than half full. */
struct vt_addresses {
    void **slots;
    size_t mask;
};

static size_t vt_slot_of(const struct vt_addresses *set, const void *address) {
    /* Objects begin at multiples of 16. */
    size_t slot = ((size_t)address >> 4) & set->mask;
    while (set->slots[slot] != NULL && set->slots[slot] != address) slot = (slot + 1) & set->mask;
    return slot;
}

/* `ids` is a list of ids of objects. Returns -1 with an exception set. */
static int vt_make_addresses(struct vt_addresses *set, PyObject *ids) {
    size_t size = 8;
    while (size < 2 * (size_t)PyList_GET_SIZE(ids)) size *= 2;
    set->mask = size - 1;
    set->slots = PyMem_Calloc(size, sizeof *set->slots);
    if (set->slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ids); i++) {
        void *address = PyLong_AsVoidPtr(PyList_GET_ITEM(ids, i));
        if (address == NULL && PyErr_Occurred()) {
            PyMem_Free(set->slots);
            return -1;
        }
        set->slots[vt_slot_of(set, address)] = address;
    }
    return 0;
}

static int vt_has(const struct vt_addresses *set, const void *address) {
    return set->slots[vt_slot_of(set, address)] != NULL;
}

/* Calls `visit` for each reference of `holder`, until it returns another value than 0. */
static int vt_visit_referents(PyObject *holder, visitproc visit, void *argument) {
    traverseproc traverse = Py_TYPE(holder)->tp_traverse;
    return traverse != NULL && PyObject_IS_GC(holder) ? traverse(holder, visit, argument) : 0;
}

struct vt_search {
    struct vt_addresses wanted;
    PyObject *found;
};

static int vt_is_wanted(PyObject *referent, void *search) {
    return vt_has(&((struct vt_search *)search)->wanted, referent);
}

static int vt_keep_if_kind_is_wanted(PyObject *referent, void *search) {
    struct vt_search *own = search;
    return vt_has(&own->wanted, Py_TYPE(referent)) && PyList_Append(own->found, referent) < 0;
}

/* The `objects` (a list) that refer to one of those with the ids `wanted`, or, if `kinds` is true, all that they refer
 * to and whose type is one of `wanted`. */
static PyObject *vt_search_references(PyObject *objects, PyObject *wanted, int kinds) {
    struct vt_search search;
    int failed = 0;

    if (vt_make_addresses(&search.wanted, wanted) < 0) return NULL;
    search.found = PyList_New(0);
    failed = search.found == NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects) && !failed; i++) {
        PyObject *holder = PyList_GET_ITEM(objects, i);
        if (kinds)
            failed = vt_visit_referents(holder, vt_keep_if_kind_is_wanted, &search);
        else if (vt_visit_referents(holder, vt_is_wanted, &search))
            failed = PyList_Append(search.found, holder) < 0;
    }
    PyMem_Free(search.wanted.slots);
    if (failed) Py_CLEAR(search.found);
    return search.found;
}
