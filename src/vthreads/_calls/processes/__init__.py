"""Replacements for the calls that start child processes and wait for them."""
