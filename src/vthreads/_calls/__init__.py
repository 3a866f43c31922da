"""Replacements for the blocking calls of the standard library.

`_patching/table.py` lists which function replaces which original. Nothing in this package patches anything.
"""
