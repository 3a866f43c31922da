"""OS threads: nothing is replaced."""


def prepare():
    pass
