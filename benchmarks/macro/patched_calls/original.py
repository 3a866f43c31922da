"""The standard library without the patch."""


def prepare():
    pass
