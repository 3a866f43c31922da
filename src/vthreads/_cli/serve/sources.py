"""Where the values of settings come from: command line, then environment, then file, then default.

    python -m vthreads serve shop.site:app --drain 5     arguments
    VTHREADS_SERVE_DRAIN=5                               the environment
    drain = 5                                            a TOML file: --config FILE, or VTHREADS_SERVE_CONFIG

A value is read and checked in the same way wherever it comes from, and an error names that place.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from math import isinf
from typing import Any, NamedTuple

from ...serve._outputs import write_notice
from .settings import SETTINGS, Choice, Flag, Many, Setting

__all__ = ["Found", "WrongSetting", "as_toml", "find_settings", "make_parser"]

CONFIG_VARIABLE = "VTHREADS_SERVE_CONFIG"
PREFIX = "VTHREADS_SERVE_"


class Found(NamedTuple):
    """A value and the place where it was found."""

    value: Any
    place: str


class WrongSetting(Exception):
    """A setting cannot be used; the message says which, where and why."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. It leaves out what was not given, and checks no value."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads serve",
        usage="%(prog)s MODULE:NAME [options]",
        epilog="Each option is also a key of the file (drain_delay = 5) and a variable (VTHREADS_SERVE_DRAIN_DELAY=5). "
        "Example: python -m vthreads serve shop.site:app --bind 0.0.0.0:8000 --workers 4",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=30),
        description="Serve a WSGI application over HTTP/1.1, each request in a virtual thread. SIGTERM finishes the "
        "requests under way.",
        argument_default=argparse.SUPPRESS,
    )
    first, *others = SETTINGS
    parser.add_argument(first.name, metavar=first.metavar, nargs="?", help=first.help)
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    parser.add_argument("--print-config", action="store_true", help="print all settings as such a file, and exit")
    limits = parser.add_argument_group("limits; 0 means none, see vthreads.serve.Limits")
    for setting in others:
        _add_option(limits if setting.section else parser, setting)
    return parser


def _add_option(group: argparse._ActionsContainer, setting: Setting) -> None:
    default = setting.default
    text = setting.help.format(f"{default:.12g}" if isinstance(default, (int, float)) else default)
    match setting.kind:
        case Flag():
            group.add_argument(setting.option, action=argparse.BooleanOptionalAction, help=text)
        case Many():
            group.add_argument(setting.option, metavar=setting.metavar, action="extend", nargs="+", help=text)
        case Choice(words):
            group.add_argument(setting.option, metavar="{" + ",".join(words) + "}", help=text)
        case _:
            group.add_argument(setting.option, metavar=setting.metavar, help=text)


def find_settings(given: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Found]:
    """Return all settings by name, from the first place that has each.

    Raises:
        WrongSetting: a value cannot be used, there is no such setting, or the file cannot be read.
    """
    path = given.get("config") or environment.get(CONFIG_VARIABLE)
    in_file = _read_file(path) if path else {}
    _warn_of_unknown(environment)
    found = {}
    for setting in SETTINGS:
        if setting.name in given:
            found[setting.name] = _of_argument(setting, given[setting.name])
        elif setting.variable in environment:
            found[setting.name] = _of_text(setting, environment[setting.variable], setting.variable)
        elif setting.name in in_file:
            found[setting.name] = Found(_checked(setting, *in_file[setting.name]), in_file[setting.name].place)
        else:
            found[setting.name] = Found(setting.default, "default")
    return found


def _of_argument(setting: Setting, value: Any) -> Found:
    place = setting.metavar if setting is SETTINGS[0] else setting.option
    if isinstance(value, str):
        value = _of_text(setting, value, place).value
    return Found(_checked(setting, value, place), "command line")


def _of_text(setting: Setting, text: str, place: str) -> Found:
    return Found(_checked(setting, setting.kind.read(text), place), place)


def _checked(setting: Setting, value: Any, place: str) -> Any:
    try:
        return setting.kind.check(value)
    except ValueError as error:
        raise WrongSetting(f"{place}: {error}") from None


def _read_file(path: str) -> dict[str, Found]:
    """Return the values of a TOML file by the names of their settings."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise WrongSetting(f"cannot read the settings in {path}: {error}") from None
    values = {(key, ""): value for key, value in content.items() if not isinstance(value, dict)}
    for section, table in content.items():
        if isinstance(table, dict):
            values |= {(key, section): value for key, value in table.items()}
    known = {(setting.name, setting.section) for setting in SETTINGS}
    for name, section in values:
        if (name, section) not in known:
            raise WrongSetting(f"{path} has {_key(name, section)}, which is not a setting{_like(name)}")
    return {name: Found(value, f"{_key(name, section)} in {path}") for (name, section), value in values.items()}


def _key(name: str, section: str) -> str:
    return f"{section}.{name}" if section else name


def _like(name: str) -> str:
    keys = {setting.name: _key(setting.name, setting.section) for setting in SETTINGS}
    close = get_close_matches(name.replace("-", "_").lower(), keys, 1)
    return f"; did you mean {keys[close[0]]}?" if close else ""


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    """Report variables that no setting reads. They may belong to another program, so they are not an error."""
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            write_notice(f"{name} is not a setting and is ignored{_like(name.removeprefix(PREFIX))}")


# --- printing


def as_toml(found: Mapping[str, Found]) -> str:
    """Return the settings as a file that gives the same values, each with its place."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Mapping[str, Found]) -> Iterator[str]:
    section = ""
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            yield f"\n[{section}]"
        value, place = found[setting.name]
        yield f"{setting.name} = {_toml(value)}  # {place}"


def _toml(value: Any) -> str:
    if isinstance(value, float) and isinf(value):
        return "inf"
    # Numbers, booleans, strings and lists of strings are written in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False)
