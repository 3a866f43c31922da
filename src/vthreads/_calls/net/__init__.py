"""Replacements for the blocking calls of `socket`, `ssl` and `select`."""
