"""Imports that were in progress at a fork, in threads that the child does not have.

The lock of such a module stays locked, and `sys.modules` has a module that nothing completes. An import of it in the
child would wait forever: plain Python hangs there. So the child forgets both, and imports the module again. CPython
itself only renews the global import lock.
"""

from __future__ import annotations

import sys
from importlib import _bootstrap
from typing import Any

__all__ = ["forget_imports_of_others"]


def forget_imports_of_others(ident: int) -> None:
    """Forget the imports of all threads but `ident`. Called in the child of a fork."""
    # By name of the module, weak references to the locks. A lock exists during an import, and has the ident of the
    # importing thread as its owner.
    locks: dict[str, Any] = _bootstrap._module_locks  # type: ignore[attr-defined]  # not in the type stubs
    for name, reference in list(locks.items()):
        lock = reference()
        if lock is None or lock.owner in (None, ident):
            continue
        del locks[name]
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]
