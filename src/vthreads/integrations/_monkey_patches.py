"""gevent and eventlet: refuse to patch the standard library on top of the patch of this package.

Their threads would wait for a hub that the scheduler does not run, so a program would hang at its first `join`. The
start of the runtime refuses the other order, in which they patch first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, wraps
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["fit"]

# Functions of these modules that patch what the program names.
PATCH_ANYTHING = ("patch_function", "patch_item", "patch_module")


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Replace the functions of `module` that patch the standard library by ones that raise; return what undoes it."""
    name = module.__name__
    refusing = [name]

    def refusal(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def patch(*args: Any, **kwargs: Any) -> Any:
            # The program may have a reference that the undoing does not reach, as `eventlet.monkey_patch`.
            if not refusing:
                return original(*args, **kwargs)
            raise RuntimeError(
                "vthreads has patched the standard library, and two libraries cannot patch one process: "
                f"remove the calls of {name} from the program, or run it without vthreads"
            )

        return patch

    undo: list[Callable[[], None]] = [refusing.clear]
    # `eventlet` has a second reference, which exists already if it was imported before the patch.
    for holder in filter(None, (module, sys.modules.get(name.partition(".")[0]))):
        for key, value in list(vars(holder).items()):
            if type(value) is FunctionType and _patches(key):
                setattr(holder, key, refusal(value))
                undo.append(partial(setattr, holder, key, value))
    return undo


def _patches(name: str) -> bool:
    return name == "monkey_patch" or (name.startswith("patch_") and name not in PATCH_ANYTHING)
