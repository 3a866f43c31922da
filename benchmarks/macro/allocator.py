"""Bring the allocator of the C library into the same state for all peers."""


def settle():
    """Free a large block once, as most programs do at some time.

    Before that, glibc maps and unmaps memory for each block above 128 KiB. asyncio receives into blocks of 256 KiB, and
    costs twice as much in such a process.
    """
    bytearray(1 << 20)
