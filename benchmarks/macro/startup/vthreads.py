"""The first group, which patches the standard library."""

PROGRAM = """
from vthreads import ThreadGroup
with ThreadGroup() as group:
    group.spawn(done.append, 1)
"""
