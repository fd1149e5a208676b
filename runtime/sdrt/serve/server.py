"""Runs the application on a port with uvicorn."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from sdrt.errors import SdrtError
from sdrt.serve.app import make_app
from sdrt.serve.errors import error_of
from sdrt.serve.options import ServeOptions
from sdrt.serve.patient_protocol import protocol
from sdrt.serve.task import Failure
from sdrt.serve.workers import Workers

__all__ = ["serve"]

_INTERVAL = 0.1
"""Seconds after which a second Ctrl-C is noticed."""


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and ends without raising the signal again."""

    def __init__(
        self,
        config: uvicorn.Config,
        listens: Callable[[], object],
        finish_jobs: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(config)
        self._listens, self._finish_jobs = listens, finish_jobs

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and say that it listens."""
        await super().startup(sockets)
        if self.started:
            self._listens()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """First let the jobs end, so that those who wait for them get an answer, then close the connections.

        A second Ctrl-C, for which uvicorn sets `force_exit`, ends the jobs at once.
        """
        finishing = asyncio.ensure_future(self._finish_jobs())
        while not finishing.done() and not self.force_exit:
            await asyncio.wait((finishing,), timeout=_INTERVAL)
        finishing.cancel()
        with suppress(asyncio.CancelledError):
            await finishing
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the server, which is then done: the exit code is 0."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    options: ServeOptions,
    listening: socket.socket,
    workers: Workers,
    started: Callable[[], object],
) -> None:
    """Answer requests until the process gets SIGINT or SIGTERM. Calls `started` when it listens.

    Raises:
        SdrtError: the application did not start, or no worker can be had. The error is of the kind that the worker met.
    """
    failures: list[Failure] = []

    def lost(failure: Failure) -> None:
        failures.append(failure)
        server.should_exit = True

    app = make_app(options, workers, lost)
    config = uvicorn.Config(
        app,
        # The same everywhere: uvicorn would take other ones where they are installed, and httptools bounds no heads.
        loop="asyncio",
        http=protocol(options.limits.silence),
        log_config=None,
        access_log=False,
        server_header=False,
        # Any local client could otherwise say that it is another one: uvicorn would believe those of 127.0.0.1.
        proxy_headers=bool(options.proxies),
        forwarded_allow_ips=list(options.proxies),
        lifespan="on",
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, started, lambda: app.state.service.stop())
    server.run(sockets=[listening])
    if failures:
        raise error_of(failures[0])
    if not server.started:
        raise SdrtError.advised("the server did not start", "the log says why")
