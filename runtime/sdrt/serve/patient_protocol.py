"""uvicorn's side of a connection, with limits for clients that neither ask nor read."""

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
    """Closes a connection on which no complete head arrives in time, or from which nothing is read.

    uvicorn itself would wait for ever.
    """

    seconds: float
    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
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
        self._stop_reading()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """An answer is whole. The head of another request may have begun to arrive before."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._expect_head()

    def pause_writing(self) -> None:
        """More of an answer is kept than the client reads."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """The client has read most of it."""
        self._stop_reading()
        super().resume_writing()

    def _expect_reading(self) -> None:
        kept = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.seconds, self._unless_read, kept)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _unless_read(self, kept: int) -> None:
        if self.transport.get_write_buffer_size() >= kept:
            self.transport.abort()  # closing would wait until all is sent
        else:
            self._expect_reading()

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
    """uvicorn's protocol with a time limit.

    The connection is closed if the head of a request does not arrive within `seconds`, or if the client reads nothing
    of a long answer for so long.
    """
    return type("PatientProtocol", (_Protocol,), {"seconds": seconds})
