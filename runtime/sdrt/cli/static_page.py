"""Serves a folder with a page to the browsers of this machine."""

from __future__ import annotations

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sdrt.cli.echo import echo
from sdrt.cli.generate.terminal import Terminal
from sdrt.errors import RequestError

__all__ = ["show_page"]

_HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Files, with the headers that let a page have threads: it is isolated from the pages of other sites."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def translate_path(self, path: str) -> str:
        """The file of an address. One that does not exist, for what a link has outside of the folder."""
        found, root = Path(super().translate_path(path)), Path(self.directory).resolve()
        try:
            return str(found) if found.resolve().is_relative_to(root) else str(root / "\uffff")
        except (OSError, ValueError):  # such as a null character
            return str(root / "\uffff")

    def list_directory(self, path: Any) -> None:
        """Nothing: only files are served."""
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    # On Windows, this would let two programs have one port.
    allow_reuse_address = os.name != "nt"


def show_page(folder: Path, port: int, terminal: Terminal) -> None:
    """Serve `folder` on the port of this machine until Ctrl-C. 0 is any free port.

    Raises:
        RequestError: the folder has no page, or the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise RequestError.advised(
            f"{folder} has no page", "write the bundle with --web", argument="show", path=folder
        )
    handler = partial(_Handler, directory=str(folder))
    try:
        server = _Server((_HOST, port), handler)
    except OSError as error:
        raise RequestError.advised(
            f"port {port} cannot be used ({error.strerror or error})",
            "choose another --port",
            argument="port",
        ) from error
    with server:
        echo(f"http://{_HOST}:{server.server_port}/")
        terminal.notice("Ctrl-C ends it")
        server.serve_forever()
