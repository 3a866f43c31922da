"""What cannot be measured here is named, with the reason."""


class LeftOut(Exception):
    """This measurement is not possible here; the message says why."""
