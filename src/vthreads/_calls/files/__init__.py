"""Replacements for calls on descriptors other than sockets: `os.read` and similar calls, files, standard input."""
