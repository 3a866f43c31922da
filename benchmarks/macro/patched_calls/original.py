"""The standard library as it is."""


def prepare():
    pass
