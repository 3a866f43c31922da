# The compiled parts of the layers above. The root of the engine fills both tables.

from functools import update_wrapper

# The compiled parts, by module and name.
cdef dict PARTS = {}
# By module: the function that stores the names of that module which compiled parts use.
cdef dict NAME_SETTERS = {}
# The Python versions of compiled parts, by module and name. They handle all uncommon cases.
cdef dict readable_parts = {}


def supply(module, **names):
    """Store the classes and constants of `module` that compiled parts use."""
    NAME_SETTERS[module](**names)


def compiled(part):
    """Return the compiled version of `part`, a class or function of an upper layer; `part` itself if there is none."""
    name = f"{part.__module__}.{part.__qualname__}"
    if name not in PARTS:
        return part
    readable_parts[name] = part
    quick = PARTS[name]
    if isinstance(part, type):
        _describe(quick, part)
    elif hasattr(quick, "__code__"):
        # Builtin functions have no such attributes: they keep the names and docstrings that they were created with.
        _name_after(part, quick)
    return quick


cdef int _name_after(readable, quick) except -1:
    """Copy names and docstring of the readable function to the compiled one, whose errors show them as well."""
    compiled_as = quick.__name__
    update_wrapper(quick, readable)
    # Passing wrong arguments on costs each call 3 ns. So it is left out for the methods of a `with` statement, which
    # gives the right arguments, and for a function that was compiled under its own name, whose errors have the right
    # name.
    if compiled_as != readable.__name__ and readable.__name__ not in ("__enter__", "__exit__"):
        vt_refuse_as_readable(quick)
    return 0


def refuse_by(function, refuse, any_error):
    """Let `refuse` raise the error of wrong arguments of `function`; return False if it is not compiled."""
    if not hasattr(function, "func_dict"):
        return False
    # A function without parameters has another entry, which is not replaced: such functions are private and hot.
    if vt_refuse_as_readable(function):
        function._refuse, function._refuses_any = refuse, any_error
    return True


# Keeps names and docstrings of compiled classes alive, because C stores only their addresses.
cdef list descriptions = []


cdef int _describe(type quick, type part) except -1:
    """Copy names, docstrings and signatures of the Python class to the compiled class and its methods."""
    cdef bytes name = f"{part.__module__}.{part.__qualname__}".encode()
    cdef bytes text = f"{_signature(part)}{part.__doc__}".encode()
    descriptions.append((name, text))
    (<PyTypeObject *>quick).tp_name = name
    (<PyTypeObject *>quick).tp_doc = text
    PyType_Modified(quick)
    for name_of_method, method in vars(part).items():
        if hasattr(vars(quick).get(name_of_method), "__code__"):
            _name_after(method, vars(quick)[name_of_method])
    return 0


cdef str _signature(type part):
    """Return the signature of a class in the form that CPython reads from builtin classes; empty without `__init__`."""
    if "__init__" not in vars(part):
        return ""
    code, defaults = part.__init__.__code__, part.__init__.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    required = len(names) - len(defaults)
    given = [f"{name}={value!r}" for name, value in zip(names[required:], defaults)]
    return f"{part.__name__}({', '.join([*names[:required], *given])})\n--\n\n"
