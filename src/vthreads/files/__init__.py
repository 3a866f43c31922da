"""Descriptors that are no sockets: `os.read` and friends, files, standard input."""
