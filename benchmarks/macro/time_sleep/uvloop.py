"""`asyncio.sleep(0)` on uvloop, as in the workload `yield`."""

from importlib import import_module

# The name of that workload is a keyword.
run = import_module("macro.yield.uvloop").run
