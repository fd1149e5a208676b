"""The socket on which the server listens."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from sdrt.errors import SdrtError

__all__ = ["bound_socket"]

_MORE_PORTS = 100


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on a port, or on any free one for 0.

    Raises:
        SdrtError: the address is not this machine's, or the port is taken. The message names the next free one.
    """
    if (made := _bound(host, port)) is not None:
        return made
    free = _next_free(host, port)
    advice = "choose another with --port" if free is None else f"take the next free one with --port {free}"
    raise SdrtError.advised(f"port {port} of {host} is taken", f"{advice}, or 0 for any")


def _next_free(host: str, port: int) -> int | None:
    for number in range(port + 1, min(port + _MORE_PORTS, 65536)):
        with suppress(SdrtError):  # another reason than that it is taken
            if (made := _bound(host, number)) is not None:
                made.close()
                return number
    return None


def _bound(host: str, port: int) -> socket.socket | None:
    """A socket that listens on a port. None if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once only on sockets that name the protocol. On others an answer in two parts waits until the
    # client has confirmed the first: 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name != "nt":  # there it would let two servers listen on one port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(2048)
    except (OSError, TypeError) as error:  # TypeError is of names that no machine can have
        made.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            return None
        reason = getattr(error, "strerror", None) or error
        raise SdrtError(f"cannot listen on {host} port {port}: {reason}", argument="host") from error
    return made
