"""The context that a virtual thread, or a call on an OS thread, inherits: a copy with a new decimal context.

`decimal` stores a mutable object in the context. In a plain copy, `decimal.getcontext().prec = n` would change the
precision of the parent and of all its children. So this object is copied too, with the settings of the parent.
"""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any

from .repeated import repeated_in

__all__ = ["decimal_variable", "inherited_context"]

# The context variable of `decimal`, which has no public name; None before the first search.
_decimal: ContextVar[Any] | None = None


@repeated_in("_core/compiled/contexts.pxi")
@repeated_in("_core/compiled/members.pxi")
def inherited_context() -> Context:
    """Return a copy of the caller's context for a thread that the caller starts."""
    context = copy_context()
    if "decimal" in sys.modules and len(context):
        variable = decimal_variable()
        if variable is not None and variable in context:
            context.run(variable.set, context[variable].copy())
    return context


def decimal_variable() -> ContextVar[Any] | None:
    """Return the variable in which `decimal` stores its context; None while the module is being imported."""
    global _decimal
    getcontext = getattr(sys.modules.get("decimal"), "getcontext", None)
    if _decimal is None and getcontext is not None:
        empty = Context()
        empty.run(getcontext)
        _decimal = next(iter(empty))
    return _decimal
