"""ONNX Runtime for browsers, from the npm registry, for bundles with a page."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from sdrt.errors import ExportError

__all__ = ["FILES", "FOLDER", "VERSION", "WEB_BYTES", "add_web_runtime"]

VERSION = "1.30.0"
FOLDER = "onnxruntime-web"
FILES = (
    *("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
)
"""WebAssembly, then WebGPU: a module each, with the code that it loads."""
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_REGISTRY = "https://registry.npmjs.org"
WEB_BYTES = 42_000_000
"""The size of `FILES`."""
_LICENCE = (
    "MIT, Copyright (c) Microsoft Corporation: https://github.com/microsoft/onnxruntime/blob/main/LICENSE\n"
)
_SECONDS = 60
_MOST = 1 << 28


def add_web_runtime(folder: Path) -> None:
    """Download the package, check its hash, and write its `FILES` into ``folder``.

    The registry is that of the variable ``NPM_CONFIG_REGISTRY``, or npm's own.

    Raises:
        ExportError: it cannot be downloaded, or is another file than expected.
    """
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or _REGISTRY
    address = f"{registry.rstrip('/')}/{FOLDER}/-/{FOLDER}-{VERSION}.tgz"
    try:
        with urlopen(address, timeout=_SECONDS) as answer:
            packed = answer.read(_MOST)
    except (HTTPException, OSError, ValueError) as error:
        raise ExportError.advised(
            f"{address} cannot be downloaded ({getattr(error, 'reason', error)})",
            "set NPM_CONFIG_REGISTRY to a registry that this machine reaches, or leave out --web",
        ) from error
    if base64.b64encode(hashlib.sha512(packed).digest()).decode() != _SHA512:
        raise ExportError.advised(
            f"{address} is not {FOLDER} {VERSION}: its hash differs", "try again, or use another registry"
        )
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        for name in FILES:
            found = archive.extractfile(f"package/dist/{name}")
            assert found is not None  # the hash is that of a package with these files
            (folder / name).write_bytes(found.read())
    # The package itself has no file of it.
    (folder / "LICENSE").write_text(_LICENCE, encoding="utf-8")
