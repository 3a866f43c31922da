"""The lines of the access log, in two formats. They depend neither on HTTP nor on the writing.

A line is made at the end of its request. A record of the request that another thread formats later would cost more: a
tuple of a dozen objects, which the garbage collector examines as long as it waits. The parts that depend on the head of
the request alone are made once for a head, since most heads recur.
"""

from __future__ import annotations

import time
from json.encoder import encode_basestring_ascii as quoted

__all__ = ["FORMATS", "CommonLines", "JsonLines", "Request"]

# The constant parts of a line: before and after what differs between two requests with the same head.
Request = tuple[str, str]


# Method and request id have no characters that need an escape: llhttp knows all methods, and the id is made here or was
# checked.
class JsonLines:
    """Lines of JSON."""

    __slots__ = ("_second", "_when")

    def __init__(self) -> None:
        self._second = -1
        self._when = ""

    def request(self, method: str, target: str, version: str, referer: str, agent: str) -> Request:
        """Return the constant parts of the lines of a request; "-" is a part of a head that was refused."""
        return (
            f'"method":"{method}","target":{quoted(target)},"version":"{version}"',
            f'"referer":{quoted(referer)},"agent":{quoted(agent)}}}\n',
        )

    def line(
        self, ended: float, client: str, request: Request, status: int, sent: int, seconds: float, request_id: str
    ) -> str:
        """Return a line with its end.

        Args:
            ended: the time of the end of the request, in seconds since the epoch.
            client: the address of the client.
            request: of `request`.
            status: the status of the response; 499 if the client has gone before it.
            sent: bytes of the response, its head included.
            seconds: from the head of the request to the end of the response.
            request_id: the identification of the request.
        """
        second = int(ended)
        if second != self._second:
            self._second = second
            self._when = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second))
        milliseconds = int((ended - second) * 1000)
        # The format of a float would take a third of the time of the line.
        microseconds = int(seconds * 1e6 + 0.5)
        start, end = request
        return (
            f'{self._when}.{milliseconds:03d}Z","client":{quoted(client)},{start},"status":{status},"sent":{sent},'
            f'"seconds":{microseconds // 1_000_000}.{microseconds % 1_000_000:06d},"request_id":"{request_id}",{end}'
        )


class CommonLines:
    """Lines of the combined format of Apache and nginx, with the request id and the time at their end."""

    __slots__ = ("_second", "_when")

    def __init__(self) -> None:
        self._second = -1
        self._when = ""

    def request(self, method: str, target: str, version: str, referer: str, agent: str) -> Request:
        """Return the constant parts of the lines of a request; "-" is a part of a head that was refused."""
        return f'"{_escaped(f"{method} {target} {version}")}"', f'"{_escaped(referer)}" "{_escaped(agent)}"'

    def line(
        self, ended: float, client: str, request: Request, status: int, sent: int, seconds: float, request_id: str
    ) -> str:
        """Return a line with its end; the arguments are those of `JsonLines.line`."""
        second = int(ended)
        if second != self._second:
            self._second = second
            self._when = time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime(second))
        start, end = request
        return f"{client or '-'} - - {self._when} {start} {status} {sent} {end} {request_id} {seconds:.6f}\n"


def _escaped(text: str) -> str:
    """Return `text` so that a client cannot end the quotes or the line with it."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text or "-"
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


FORMATS: dict[str, type[JsonLines] | type[CommonLines]] = {"json": JsonLines, "common": CommonLines}
