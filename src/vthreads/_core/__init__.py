"""The machine. Self-contained: it imports nothing from above but `errors`.

What the rest of the package may use of it is what its modules list in `__all__`; `docs` of each module says what it does
not know. Order of the layers, highest first: runtime, group, semaphore, future, thread, cancel, wait_queue, current,
engine, then clock, order and originals.
"""
