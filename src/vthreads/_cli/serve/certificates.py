"""The certificate of the command: loaded at the start, and anew at SIGHUP."""

from __future__ import annotations

import logging
import ssl
from argparse import Namespace

from .application import WrongCommand

__all__ = ["Certificates"]

log = logging.getLogger("vthreads.serve")


class Certificates:
    """The TLS context of the server.

    Args:
        settings: `certfile` and `keyfile`; empty: no TLS.

    Attributes:
        context: the context of all connections, or None.

    Raises:
        WrongCommand: they cannot be loaded.
    """

    def __init__(self, settings: Namespace) -> None:
        self._certfile, self._keyfile = settings.certfile, settings.keyfile
        self.context = self._loaded() if self._certfile else None

    def reload(self) -> None:
        """Load the files anew for later handshakes; after a failure, keep the old certificate. Not a checkpoint."""
        if self.context is None:
            return
        try:
            # A context that fails to load has lost what it had, so try with another one first.
            self._loaded()
            self.context.load_cert_chain(self._certfile, self._keyfile)
        except (WrongCommand, OSError) as error:
            log.error("the old certificate stays in use: %s", error)

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._certfile, self._keyfile)
        except OSError as error:
            raise WrongCommand(
                f"cannot load --certfile {self._certfile!r} and --keyfile {self._keyfile!r}: {error}; "
                "both must exist, be PEM and belong together"
            ) from None
        return context
