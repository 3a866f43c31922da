"""Idents of virtual threads: unique in the process, and harmless if C code uses one as a `pthread_t`.

Programs pass `threading.get_ident()` to C: `signal.pthread_kill`, `time.pthread_getcpuclockid`, `pthread_setname_np` by
ctypes. The C library reads and locks the thread descriptor at that address without a check, so a small number would
cause a segmentation fault. So each ident is an address in memory that is all zero: the C library finds a thread without
a kernel thread and returns an error. Only touched pages use memory, and only such C code touches them.
"""

from __future__ import annotations

import mmap
import signal
import sys
from _ctypes import _SimpleCData, addressof
from collections.abc import Iterator

from .originals import Section
from .repeated import repeated_in

__all__ = ["fresh_idents", "is_virtual_ident", "next_ident", "opening_region", "serial_number"]

# Thread descriptors have fields of eight bytes, some of which require that alignment.
STEP = 8
# Bytes after the last ident: more than the size of a thread descriptor, in any C library.
TAIL = 65_536
# The second size is used if the address space of the process is limited.
SIZES = (1 << 30, 1 << 20)
# `mmap` has the name from Python 3.13 on. Without the flag, memory that is never touched may be counted as used.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

opening_region = Section()
_current: Iterator[int] = iter(())
# Memory, idents, and number of idents before; without memory if no C function accepts idents.
_regions: list[tuple[mmap.mmap | None, range, int]] = []


@repeated_in("_core/compiled/idents.pxi")
def next_ident() -> int:
    """Return an ident that no other thread of this process has or had. Thread-safe."""
    while True:
        idents = _current
        for ident in idents:
            return ident
        fresh_idents(idents)


def fresh_idents(used_up: Iterator[int]) -> Iterator[int]:
    """Return the current iterator of idents; a new one if the current one is `used_up`. Thread-safe."""
    global _current
    with opening_region:
        if _current is used_up or not _regions:
            _current = iter(_open_region())
        return _current


def is_virtual_ident(ident: int) -> bool:
    """Return whether a virtual thread has, or had, this ident."""
    return any(ident in numbers for _, numbers, _ in _regions)


def serial_number(ident: int) -> int:
    """Return the number of the virtual thread in the process, from 1 on; `ident` itself if it is not virtual."""
    for _, numbers, before in _regions:
        if ident in numbers:
            return before + numbers.index(ident) + 1
    return ident


class _Char(_SimpleCData):  # type: ignore[type-arg]  # generic in the type stubs only
    """`ctypes.c_char`. The C part of `ctypes` is enough, and takes a quarter of the time to import."""

    _type_ = "c"


def _open_region() -> range:
    memory = _map_memory() if hasattr(signal, "pthread_kill") else None
    if memory is None:
        numbers = range(1, sys.maxsize)
    else:
        start = addressof(_Char.from_buffer(memory))
        numbers = range(start, start + len(memory) - TAIL, STEP)
    _regions.append((memory, numbers, sum(len(numbers) for _, numbers, _ in _regions)))
    return numbers


def _map_memory() -> mmap.mmap | None:
    for size in SIZES:
        try:
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
        except OSError:
            # Too large for the limits of this process.
            pass
    return None
