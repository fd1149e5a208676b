"""The socket on which the server listens."""

from __future__ import annotations

import errno
import os
import socket

from sdrt.errors import SdrtError

__all__ = ["bound_socket"]

_MORE_PORTS = 100


def bound_socket(host: str, port: int, *, others: bool) -> socket.socket:
    """A socket that listens on a port, or on the next free one if `others`.

    Raises:
        SdrtError: the address is not this machine's, or no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, min(port + (_MORE_PORTS if others and port else 1), 65536)):
        made = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt":  # there it would let two servers listen on one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, number))
            made.listen(2048)
        except (OSError, TypeError) as error:  # TypeError is of names that no machine can have
            made.close()
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                continue
            reason = getattr(error, "strerror", None) or error
            raise SdrtError(f"cannot listen on {host} port {number}: {reason}", argument="host") from error
        return made
    raise SdrtError.advised(f"port {port} of {host} is taken", "choose another with --port, or 0 for any")
