"""The workloads in a folder, and the peers of each."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

__all__ = ["Peer", "Workload", "workload_names"]


class Peer(NamedTuple):
    """A measured module, with its environment variables."""

    module: str
    environment: dict[str, str]


# One file, two engines. The other peers are compared with the first.
ENGINES = {
    "vthreads": Peer("vthreads", {"VTHREADS_ENGINE": "accelerated"}),
    "vthreads_reference": Peer("vthreads", {"VTHREADS_ENGINE": "reference"}),
}


def workload_names(folder: Path) -> list[str]:
    """Return the workloads of a folder."""
    return sorted(init.parent.name for init in folder.glob("macro/*/__init__.py"))


class Workload:
    """One workload.

    Attributes:
        name, folder: its name, and the folder `benchmarks` that contains it.
        question: the question that it answers.
        size_word: the unit of its size.
        sizes: default sizes.
        figures: name and unit of each figure.
        peers: its peers by name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        module = import_module(f"macro.{name}")
        self.name = name
        self.folder = folder
        self.question = (module.__doc__ or "").partition("\n")[0]
        self.size_word: str = module.SIZE
        self.sizes: tuple[int, ...] = module.SIZES
        self.figures: dict[str, str] = module.FIGURES
        self.peers = _peers_in(folder / "macro" / getattr(module, "PEERS", name))


def _peers_in(folder: Path) -> dict[str, Peer]:
    helpers = set(getattr(import_module(f"macro.{folder.name}"), "HELPERS", ()))
    stems = {file.stem for file in folder.glob("*.py")} - {"__init__", "vthreads"} - helpers
    return ENGINES | {stem: Peer(stem, {}) for stem in sorted(stems)}
