"""Event loops of asyncio on the OS thread of a carrier. Nothing here imports asyncio before a loop is there."""
