"""Replace every reference to an original that can be changed, wherever Python code stores it.

That is: module globals, attributes of classes and objects, items of dicts and lists, closures, function defaults and
partials. References in tuples, running functions and C code cannot be changed.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from .below import attributes_of
from .holders import Survey
from .places import places_in
from .references import LEFT_ALONE, Undo

__all__ = ["replace_everywhere"]


def replace_everywhere(replacements: list[tuple[Any, Any]], survey: Survey) -> list[Undo]:
    """Replace references to the first of each pair by the second; return the functions that undo it."""
    originals = {id(old): old for old, _ in replacements}
    successors = {id(old): new for old, new in replacements}
    left_alone = {id(replacements), *map(id, replacements)}
    for module in [sys.modules[name] for name in LEFT_ALONE if name in sys.modules]:
        # The state of a C module may hold its classes too, so exclude the module as well as its dict.
        left_alone |= {id(module), id(attributes_of(module))}
    holders = [holder for holder in survey.holders(originals) if id(holder) not in left_alone]
    undo = [
        put_back
        for holder in holders
        if not survey.is_own(holder)
        for put_back in _exchange(holder, survey.class_with(holder), originals, successors)
    ]
    # Functions keep their defaults in tuples, and partials their arguments. Replace the whole tuple there.
    tuples = {id(holder): holder for holder in holders if type(holder) is tuple}
    with_tuples = survey.with_tuples(tuples)
    renewed = {key: tuple(successors.get(id(part), part) for part in old) for key, old in tuples.items()}
    for holder in with_tuples:
        if not survey.is_own(holder):
            undo += _exchange(holder, None, tuples, renewed)
    return undo


def _exchange(holder: Any, cls: type | None, originals: dict[int, Any], successors: dict[int, Any]) -> list[Undo]:
    # Keyed by the new object's id. It may replace several objects: `_thread` has two names for some functions.
    exchanged: dict[int, list[tuple[Any, Any]]] = {}
    for place in places_in(holder, originals, cls):
        new = successors[place.old]
        place.put(new)
        exchanged.setdefault(id(new), []).append((place.key, originals[place.old]))
    # No place found: an object also refers to its class, and that reference is not replaced.
    return [partial(_put_back, holder, cls, exchanged)] if exchanged else []


def _put_back(holder: Any, cls: type | None, exchanged: dict[int, list[tuple[Any, Any]]]) -> None:
    # Restore only what is still there: the program may have stored something else.
    for place in places_in(holder, exchanged, cls):
        was_there = exchanged[place.old]
        old = next((old for key, old in was_there if key is place.key), was_there[0][1])
        place.put(old)
