"""The settings of `vthreads serve`, as one table. Command line, environment, file and help are made from it.

A kind reads a value from text (an argument, a variable) and checks it; a file gives typed values, which are only
checked. Both raise `ValueError` with a message that continues the name of the setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

from ...serve import Limits
from ...serve._addresses import parse_address
from ...serve._proxies import FAMILIES, TrustedProxies

__all__ = ["SETTINGS", "Flag", "Kind", "Many", "Setting"]

DEFAULT_BIND = "127.0.0.1:8000"
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Kind(Protocol):
    """A kind of values."""

    def read(self, text: str) -> Any:
        """Return the value that `text` means. It is not checked yet."""

    def check(self, value: Any) -> Any:
        """Return `value` in its normal form."""


@dataclass(frozen=True)
class Text:
    """Text; `explain` raises `ValueError` if it cannot be used."""

    explain: Callable[[str], object] = str

    def read(self, text: str) -> str:
        return text

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a string, got {value!r}")
        if value:
            self.explain(value)
        return value


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    words: tuple[str, ...]

    def read(self, text: str) -> str:
        return text

    def check(self, value: Any) -> str:
        if value not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}, got {value!r}")
        return str(value)


@dataclass(frozen=True)
class Number:
    """A number with a lower bound. It is not NaN, which no comparison would find."""

    least: int = 0
    is_whole: bool = False

    def read(self, text: str) -> float | str:
        try:
            return int(text) if self.is_whole else float(text)
        except ValueError:
            # `check` reports it.
            return text

    def check(self, value: Any) -> float:
        what = "a whole number" if self.is_whole else "a number"
        is_number = isinstance(value, int if self.is_whole else (int, float)) and not isinstance(value, bool)
        if not is_number or not value >= self.least:
            raise ValueError(f"must be {what} >= {self.least}, got {value!r}")
        return value  # type: ignore[no-any-return]  # it is a number


class Flag:
    """Yes or no."""

    def read(self, text: str) -> bool | str:
        word = text.lower()
        return True if word in TRUE else False if word in FALSE else text

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, got {value!r}")
        return value


@dataclass(frozen=True)
class Many:
    """A list; in a variable of the environment its members are separated by blanks."""

    of: Kind

    def read(self, text: str) -> list[Any]:
        return [self.of.read(word) for word in text.split()]

    def check(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, got {value!r}")
        return [self.of.check(each) for each in value]


class Setting(NamedTuple):
    """A setting.

    Attributes:
        name: its key in a file; the option and the variable are made from it.
        kind: its values.
        default: its value if nothing gives one.
        metavar: stands for the value in the help.
        help: the effect; "{}" is replaced by the default.
        section: the table of a file in which it is; "": none.
    """

    name: str
    kind: Kind
    default: Any
    metavar: str
    help: str
    section: str = ""

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"VTHREADS_SERVE_{self.name.upper()}"


TEXT, FLAG, ADDRESS = Text(), Flag(), Text(parse_address)
NETWORK = Text(lambda text: TrustedProxies([text]))
SECONDS, COUNT = Number(), Number(is_whole=True)

# The object of each limit, and the answer of the server above it.
LIMITS = {
    "header_seconds": "for the head of a request; then 408",
    "handshake_seconds": "for a TLS handshake; then close",
    "idle_seconds": "for a connection without a request; then close",
    "body_bytes": "in the body of a request; above it 413",
    "body_rate": "bytes a second of a body, after 5 s; below it 408",
    "write_seconds": "for a response without progress; then reset",
    "request_seconds": "to the head of a response; then cancel the handler, 504",
    "gone_seconds": "after a client ended its side; then cancel the handler",
    "in_flight": "requests that are handled at once; above it 503",
    "age_seconds": "from the arrival of a request to its start; then 503",
    "connections": "that are open at once; above it accept no more",
}


def _limits() -> Iterator[Setting]:
    for field in fields(Limits):
        yield Setting(field.name, Number(), field.default, "N", f"{LIMITS[field.name]} ({{}})", "limits")


SETTINGS = (
    Setting("application", TEXT, "", "MODULE:NAME", "the application, as in package.module:app"),
    Setting("factory", FLAG, False, "", "NAME is a function that returns the application"),
    Setting("app_dir", TEXT, "", "DIR", "import MODULE from DIR (the current directory)"),
    Setting(
        "bind",
        Many(ADDRESS),
        [DEFAULT_BIND],
        "ADDRESS",
        f"host:port, [v6]:port, unix:/path or fd://3; may be repeated ({DEFAULT_BIND})",
    ),
    Setting("workers", Number(1, is_whole=True), 1, "N", "processes that share the listeners ({})"),
    Setting("root_path", TEXT, "", "PATH", "the path below which the application is mounted"),
    Setting("certfile", TEXT, "", "FILE", "certificate chain for TLS, as PEM"),
    Setting("keyfile", TEXT, "", "FILE", "private key for TLS, as PEM"),
    Setting("drain", SECONDS, 30.0, "SECONDS", "for requests under way after the stop; then cancel them ({})"),
    Setting("drain_delay", SECONDS, 0.0, "SECONDS", "from SIGTERM until no connection is accepted ({})"),
    Setting("admin", ADDRESS, "", "ADDRESS", "serve /live, /ready, /metrics, /dump here"),
    Setting(
        "access_log",
        Choice(("auto", "off", "json", "common")),
        "auto",
        "",
        "a line for each request, on stdout (auto: off on a terminal, else json)",
    ),
    Setting("error_log", Choice(("text", "json")), "text", "", "of log records, if nothing configures logging ({})"),
    Setting("trusted_proxies", Many(NETWORK), [], "NET", "addresses, networks or unix; may name the client"),
    Setting("forwarded_fields", Choice(FAMILIES), FAMILIES[0], "", "the fields that trusted proxies set ({})"),
    Setting("proxy_protocol", FLAG, False, "", "connections of trusted proxies begin with a PROXY header"),
    Setting("max_requests", COUNT, 0, "N", "replace a worker after N to 1.1 N requests (0: never)"),
    Setting("max_rss", Number(), 0, "MIB", "replace a worker that uses more memory (0: never)"),
    Setting("watchdog", SECONDS, 30.0, "SECONDS", "replace a worker without a heartbeat ({}; 0: never)"),
    Setting("reload", FLAG, False, "", "replace the workers after a change of a .py file below --app-dir"),
    Setting("half_close", FLAG, False, "", "answer clients that have closed their sending side, however late"),
    Setting("cancel_when_gone", FLAG, True, "", "cancel the handler of a client that has gone"),
    *_limits(),
)
