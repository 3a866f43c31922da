"""The blocking calls of `socket`, `ssl` and `select`, as they are on a virtual thread."""
