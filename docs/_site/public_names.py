"""Sphinx extension: the reference of all public names and commands, and a check that none is missing.

In an `eval-rst` block:

    .. public:: vthreads.ThreadGroup vthreads.Future

describes these objects by their docstrings, a class with the methods that `help` shows to users;

    .. public-modules:: vthreads.serve vthreads.integrations

describes every name in `__all__` of these modules and of the public modules inside them; and

    .. commands::

prints the help of each command. A public name that no page describes is a warning, and so is a site without the
commands: either fails `make docs`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import vthreads
from vthreads._cli import COMMANDS, main

PACKAGE = "vthreads"
# Part of the docstring of a class that users do not call.
CREATED_BY = "Created by "
COMMANDS_ARE_HERE = "has the commands of vthreads"
PRIVATE_ATTRIBUTE = re.compile(r":vartype \w+: .*\._\w+\W*$")
PATH_OF_TYPE = re.compile(r"~(?:\w+\.)*(\w+)|\bvthreads\.(?:\w+\.)*_\w*(?:\.\w+)*\.(\w+)")


def public_modules(root: str = PACKAGE) -> list[str]:
    """The names of `root` and of the modules inside it that have no part with an underscore in front."""
    package = importlib.import_module(root)
    inside = pkgutil.walk_packages(getattr(package, "__path__", ()), f"{root}.")
    return [root, *(found.name for found in inside if not any(part[0] == "_" for part in found.name.split(".")))]


def public_names() -> Iterator[tuple[str, Any]]:
    """Each public name with its module, and its object."""
    for module in public_modules():
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            value = getattr(loaded, name)
            if not inspect.ismodule(value):
                yield f"{module}.{name}", value


def found_by(path: str) -> Any:
    """The object that a dotted path names."""
    module = path
    while True:
        try:
            value = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
    rest = path.removeprefix(module).strip(".")
    for part in rest.split(".") if rest else ():
        value = getattr(value, part)
    return value


def members_for_users(cls: type) -> list[str]:
    """The attributes of a class that the package defines for users: `help` shows them beside those of the stdlib."""
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == PACKAGE]
    stdlib = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    found = {name: None for base in ours for name in vars(base) if name[0] != "_" and name not in stdlib}
    # Overridden methods of the standard library are part of the interface if they have docstrings.
    return [name for name in found if inspect.getdoc(getattr(cls, name, None))]


def directives_for(path: str) -> list[str]:
    """The autodoc directives that describe the object."""
    value = found_by(path)
    if inspect.isclass(value):
        members = members_for_users(value)
        options = [f"   :members: {', '.join(members)}", "   :inherited-members:"] if members else []
        return [f".. autoclass:: {path}", *options, ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {path}", ""]
    return [f".. autodata:: {path}", ""]


class Generated(SphinxDirective):
    """A directive that parses lines which it makes itself."""

    has_content = False

    def parsed(self, lines: list[str]) -> list[nodes.Node]:
        """Parse the lines as a part of the page."""
        container = nodes.Element()
        content = StringList(lines, source="public names")
        self.state.nested_parse(content, self.content_offset, container, match_titles=True)
        return container.children


class Public(Generated):
    """Describe the objects that the arguments name."""

    required_arguments = 1
    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        """Parse their directives."""
        return self.parsed([line for path in self.arguments for line in directives_for(path)])


class PublicModules(Generated):
    """Describe every public name of the modules that the arguments name, and of the modules inside them."""

    required_arguments = 1
    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        """Parse the directives of all names."""
        lines = []
        for root in self.arguments:
            for module in public_modules(root):
                loaded: ModuleType = importlib.import_module(module)
                lines += [f".. py:module:: {module}", ""]
                # The heading of the page names the outermost module.
                lines += [] if module == root else [f".. rubric:: ``{module}``", ""]
                lines += [line for name in loaded.__all__ for line in directives_for(f"{module}.{name}")]
        return self.parsed(lines)


class Commands(Generated):
    """Print the help of the program and of each command."""

    def run(self) -> list[nodes.Node]:
        """Make a section for each command."""
        # For the check. Sphinx removes it with the page.
        self.env.metadata[self.env.docname][COMMANDS_ARE_HERE] = True
        sections = [self.section("vthreads", [])]
        return [*sections, *(self.section(f"vthreads {name}", [name]) for name in COMMANDS)]

    def section(self, title: str, arguments: list[str]) -> nodes.section:
        """A section with the output of `--help`."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*arguments, "--help"])
        text = printed.getvalue().rstrip()
        if not text.startswith("usage:"):
            logging.getLogger(__name__).warning("%s --help prints no help: %r", title, text)
        section = nodes.section(ids=[nodes.make_id(title)])
        self.state.document.note_explicit_target(section, section)
        section += [nodes.title("", "", nodes.literal("", title)), nodes.literal_block(text, text, language="text")]
        return section


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that no page describes."""
    kinds = ("class", "exception", "function", "data")
    described = [path for path, entry in env.domains["py"].objects.items() if entry.objtype in kinds]
    ids = {id(found_by(path)) for path in described if path.startswith(f"{PACKAGE}.")}
    logger = logging.getLogger(__name__)
    for path, value in public_names():
        # Users look for the names of the package under these names, also if a module inside describes the same object.
        is_of_package = path.count(".") == 1
        if path not in described if is_of_package else id(value) not in ids:
            logger.warning("%s is public, but no page of docs/reference describes it", path)
    if not any(COMMANDS_ARE_HERE in page for page in env.metadata.values()):
        logger.warning("no page of docs/reference has the directive `commands`")


def shortened(app: Sphinx, *of: Any) -> tuple[str | None, str | None]:
    """Signatures without the modules of types: `Callable`, `T`, not `~collections.abc.Callable`.

    None for a class that says "Created by": its arguments are not for users.
    """
    kind, _, value, _, signature, result = of
    if kind == "class" and CREATED_BY in (value.__doc__ or ""):
        return None, None
    return tuple(text and PATH_OF_TYPE.sub(lambda match: match[1] or match[2], text) for text in (signature, result))  # type: ignore[return-value]


def shorten_attributes(app: Sphinx, *of: Any) -> None:
    """Shorten the types of attributes as those of signatures, and remove those that only the package uses."""
    lines: list[str] = of[-1]
    lines[:] = [
        PATH_OF_TYPE.sub(lambda match: match[1] or match[2], line) if line.startswith(":vartype ") else line
        for line in lines
        if not PRIVATE_ATTRIBUTE.match(line)
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the check."""
    assert vthreads.__file__ is not None
    app.add_directive("public", Public)
    app.add_directive("public-modules", PublicModules)
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-signature", shortened)
    # After napoleon, which writes the types of attributes.
    app.connect("autodoc-process-docstring", shorten_attributes, priority=600)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
