"""The limit of descriptors of a process."""

import resource

# Descriptors that a process needs in addition to the measured connections.
OTHERS = 100


def allow_all():
    """Raise the limit of this process and its children to the maximum; return the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
