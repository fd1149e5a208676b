"""The page at /: a fixed table of files in `sdrt/serve/page`. A request never names a path of the server's."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from sdrt.serve.errors import ServeError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_INDEX = "index.html"
_SCRIPTS = (
    *("main", "api", "dialogs", "drop", "fields", "files"),
    *("form", "gallery", "guides", "loras", "mask", "run"),
)
_FILES: Mapping[str, str] = {
    _INDEX: "text/html",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    **{f"{name}.js": "text/javascript" for name in _SCRIPTS},
}
"""The media types of the files."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A browser asks each time whether the file has changed, so that no page mixes the files of two versions.
    "Cache-Control": "no-cache",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, _INDEX)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A file of the page."""
    if name not in _FILES or name == _INDEX:
        raise ServeError(404, f"the page has no file {name[:64]!r}")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    content, tag = _file(name)
    headers = {**_HEADERS, "ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_FILES[name])


@functools.cache
def _file(name: str) -> tuple[bytes, str]:
    """The content of a file, and its ETag."""
    content = (files("sdrt.serve") / "page" / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
