"""The interpreter alone, which is a part of every figure."""

PROGRAM = "done.append(1)"
