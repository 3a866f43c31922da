"""`vthreads serve`: serve the WSGI application of a module over HTTP, in one process or in several workers."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

from ..._core.runtime import run
from ...serve import Server
from ...serve._board import Board
from ...serve._outputs import non_blocking_outputs, open_missing_outputs, write_notice
from ..run import INTERRUPTED
from ..systemd import inherited_addresses, notify
from .logs import install_error_log
from .process import Process
from .sources import Found, WrongSetting, as_toml, find_settings, make_parser
from .workers import announced, supervise

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Serve the application that `arguments` name until SIGTERM or Ctrl-C; return its exit status."""
    open_missing_outputs()
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    try:
        found = find_settings(given, os.environ)
        if found["bind"].place == "default":
            found["bind"] = Found(inherited_addresses(os.environ) or found["bind"].value, "default")
    except (WrongSetting, ValueError) as error:
        parser.error(str(error))
    if given.get("print_config"):
        print(as_toml(found), end="")
        return 0
    settings = Namespace(**{name: each.value for name, each in found.items()})
    _check(parser, settings)
    with non_blocking_outputs():
        install_error_log(settings.error_log)
        return _serve(parser, settings)


def _serve(parser: ArgumentParser, settings: Namespace) -> int:
    try:
        if settings.workers > 1 or settings.max_requests or settings.max_rss or settings.reload:
            return supervise(parser, settings)
        # The application is imported after the start of the runtime, so that it sees the patched standard library.
        return run(Process(parser, settings, Board(1), None, partial(_announce, settings)).run)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        write_notice("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return 1


def _check(parser: ArgumentParser, settings: Namespace) -> None:
    """Report what is wrong with several settings together."""
    if not settings.application:
        parser.error("no application is given; name it as MODULE:NAME, as in package.module:app")
    if bool(settings.keyfile) != bool(settings.certfile):
        parser.error("--certfile and --keyfile belong together")
    if find_spec("httptools") is None:
        parser.error("the package httptools is not installed; install it with: pip install 'vthreads[serve]'")


def _announce(settings: Namespace, server: Server) -> None:
    notify("ready")
    write_notice(announced(server.addresses, settings))
