"""The machine. Self-contained: it imports nothing from above but `errors`.

What the rest of the package may use of it is what its modules list in `__all__`; the docstring of each says what it
does not know. The layers, highest first: runtime, group, semaphore, future; thread, cancel, wait_queue and current;
engine; clock, order and spawn_site; originals.
"""
