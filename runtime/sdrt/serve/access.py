"""Who may use the server: keys, the names by which it is reached, and pages of other sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sdrt.serve.errors import ServeError
from sdrt.serve.keys import Keys, key_of_header
from sdrt.serve.options import is_loopback

__all__ = ["OPEN_PATHS", "Access"]

OPEN_PATHS = ("/", "/healthz", "/readyz", "/page/", "/v1/images/files/")
"""What needs no key: the page, which asks for one, what a load balancer looks at, and images by signed addresses."""


class Access:
    """Lets requests through that have a key, or that come from this machine if none is needed.

    Without keys, only this machine reaches the server. Then pages of other sites must not use it through the browser of
    a user, so that `Host` and `Origin` must name this server.

    Args:
        app: the application.
        keys: the keys. Empty if none is needed.
        origins: other sites whose pages may use the server.
        hosts: further names of this server.
        refuse: the application that answers in its place.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        origins: Sequence[str],
        hosts: Sequence[str],
        refuse: Callable[[Scope, ServeError], ASGIApp],
    ) -> None:
        self._app, self._keys, self._origins, self._hosts = app, keys, origins, hosts
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and note in its state who sent it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            client = self._client(scope, Headers(scope=scope))
        except ServeError as error:
            await self._refuse(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self._app(scope, receive, send)

    def _client(self, scope: Scope, headers: Headers) -> str:
        self._check_origin(headers)
        address = (scope.get("client") or ("unknown", 0))[0]
        if not self._keys:
            self._check_host(headers)
            return str(address)
        # A browser asks whether it may send the key before it sends it.
        if scope.get("method") == "OPTIONS" or _is_open(scope["path"]):
            return str(address)
        key = key_of_header(headers.get("authorization", ""))
        name = None if key is None else self._keys.name_of(key)
        if name is None:
            what = "no key" if key is None else "a key that this server does not know"
            raise ServeError(
                401,
                f"the request has {what}: send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return name

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that another site's DNS may have given this machine."""
        host = _split(f"//{headers.get('host', '')}").hostname or ""
        if not is_loopback(host) and host not in self._hosts:
            raise ServeError(
                403,
                f"this server is not called {host[:128]!r}: use its own address, or start it with --host-name",
                code="unknown_host",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if _split(origin).netloc != headers.get("host"):
            raise ServeError(
                403,
                f"pages of {origin[:128]!r} may not use this server: allow them with --cors ORIGIN",
                code="unknown_origin",
            )


def _split(address: str) -> SplitResult:
    """The parts of an address. All are empty for one that is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or any(
        path.startswith(one) for one in OPEN_PATHS if one.endswith("/") and one != "/"
    )
