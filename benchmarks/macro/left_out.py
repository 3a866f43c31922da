"""The exception for measurements that are impossible on this machine."""


class LeftOut(Exception):
    """This measurement is not possible on this machine; the message is the reason."""
