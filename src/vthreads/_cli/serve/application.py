"""The application of the command: import it by its name, and explain what is wrong with the name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

__all__ = ["WrongCommand", "find_application"]


class WrongCommand(Exception):
    """The arguments name something that cannot be served; the message says why, and what to do."""


def find_application(settings: Namespace) -> Callable[..., Any]:
    """Import and return the application; a failure inside its modules passes through.

    Raises:
        WrongCommand: there is no such application.
    """
    named = _load(settings.application, settings.app_dir)
    if not settings.factory:
        # Both are asked: a callable that takes neither gets the request, and its failure is in the log.
        if _takes(named) and not _takes(named, {}, None):
            raise WrongCommand(f"{settings.application} takes no request; if it returns the application, add --factory")
        return named
    if not _takes(named):
        raise WrongCommand(
            f"{settings.application} cannot be called without arguments; if it is the application, omit --factory"
        )
    made = named()
    if not callable(made):
        raise WrongCommand(f"{settings.application}() returned {made!r}; with --factory it must return an application")
    return made  # type: ignore[no-any-return]  # the result of an unknown function


def _load(name: str, folder: str) -> Callable[..., Any]:
    module_name, separator, path = name.partition(":")
    if not separator or not module_name or not path:
        raise WrongCommand(f"{name!r} names no application; write MODULE:NAME, as in package.module:app")
    sys.path.insert(0, os.path.abspath(folder))
    try:
        module = found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the application misses is its own fault, which needs the traceback.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise WrongCommand(
            f"there is no module {error.name!r} in {sys.path[0]} or on sys.path; correct its name, or give its "
            "directory with --app-dir"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise WrongCommand(f"{module!r} has no {path!r}; give the name of the application there")
        found = getattr(found, part)
    if not callable(found):
        raise WrongCommand(f"{name} is {found!r}, which is not callable; give the name of a WSGI application")
    return found


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Return whether a call with `arguments` fits the parameters; True for code in C that does not name them."""
    try:
        # A decorator such as `Request.application` of werkzeug calls a function with other parameters than its own.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
