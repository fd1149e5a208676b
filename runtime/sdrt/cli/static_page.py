"""Serves a folder with a page to the browsers of this machine."""

from __future__ import annotations

import os
import sys
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

    def send_head(self) -> Any:
        """Refuse other names of this machine: a page of another site could give itself one, and read the files."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in (_HOST, "localhost"):
            self.send_error(421)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def translate_path(self, path: str) -> str:
        """The file for an address. If a link leads out of the folder, a path that does not exist."""
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def show_page(folder: Path, port: int, terminal: Terminal) -> None:
    """Serve `folder` on the port of this machine until Ctrl-C. 0 is any free port.

    Raises:
        RequestError: the folder is no bundle with a page, or the port is taken.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise RequestError.advised(f"{folder} {state}", "name a bundle", argument="show", path=folder)
    if not all((folder / name).is_file() for name in ("index.html", "plan.json")):
        raise RequestError.advised(
            f"{folder} is not a bundle with a page", "write it with --web", argument="show", path=folder
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
