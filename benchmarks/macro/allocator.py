"""The state of the C library's allocator, the same for all."""


def settle():
    """Free a large block once, as programs do sooner or later.

    Until that has happened, glibc maps and unmaps memory for each block above 128 KiB. asyncio receives into blocks of
    256 KiB, and costs twice as much in a process that is so fresh.
    """
    bytearray(1 << 20)
