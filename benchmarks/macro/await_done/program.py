"""The program of all peers: they differ in how blocking code awaits a coroutine."""


async def done():
    return 1


def calls(await_, operations, watch, coroutine=done):
    """Await `coroutine()` for each operation."""
    with watch():
        for _ in range(operations):
            await_(coroutine())
    return operations
