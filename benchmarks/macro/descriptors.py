"""How many descriptors a process may have."""

import resource

# What a process opens besides the connections that are measured.
OTHERS = 100


def allow_all():
    """Raise the limit of this process, and of those that it starts, as far as it goes; how far that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
