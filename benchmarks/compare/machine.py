"""Description of the machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["machine", "versions"]

PACKAGES = (
    *(
        "vthreads",
        "greenlet",
        "gevent",
        "greenback",
        "uvloop",
        "trio",
        "aiohttp",
        "requests",
        "urllib3",
        "psycopg",
        "asyncpg",
        "redis",
        "uvicorn",
        "httptools",
        "granian",
        "gunicorn",
        "bjoern-binary",
        "websockets",
        "flask",
        "starlette",
    ),
)


def machine() -> dict[str, str | int]:
    """Return processor, cores, memory, system and interpreter."""
    return {
        "processor": _first_value(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count() or 1,
        "memory": _first_value(Path("/proc/meminfo"), "MemTotal"),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": sys.version.partition("[")[2].rstrip("]"),
    }


def versions() -> dict[str, str]:
    """Return the versions of the measured packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # The measurements list it as left out.
            pass
    return found


def _first_value(file: Path, key: str) -> str:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"
