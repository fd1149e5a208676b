"""uvicorn's side of a connection, with a limit to how long the head of a request may take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["protocol"]

_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s"
)


class _Protocol(H11Protocol):
    """Closes a connection on which no complete head arrives in time. uvicorn itself would wait for ever."""

    seconds: float
    _timer: asyncio.TimerHandle | None = None
    _has_begun = False

    def connection_made(self, transport: Any) -> None:
        """The client may begin."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes arrived, of a head or a body."""
        super().data_received(data)
        self._has_begun = True
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._too_late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        # Not after the answer to a request whose body is still arriving.
        if self._has_begun and (self.cycle is None or not self.cycle.more_body):
            text = f"the head of the request did not arrive within {self.seconds:g} s".encode()
            self.transport.write(_ANSWER % (len(text), text))
        self.transport.close()


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol in which the head of a request arrives within `seconds`, or the connection is closed."""
    return type("PatientProtocol", (_Protocol,), {"seconds": seconds})
