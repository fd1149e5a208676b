"""This script unpacks onnxruntime-gpu from the parts of an archive (`ort.tar.xz.00` and so on) into a folder.

    python -m benchmarks.unpack PARTS SITE

It uses Python's tarfile and lzma, because a bare machine may have no `xz`.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["parts_in", "unpack"]

PREFIX = "ort.tar.xz."


class _Joined(io.RawIOBase):
    """A stream of several files, one after the other, that can be read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._streams = [path.open("rb") for path in paths]

    def read(self, size: int = -1) -> bytes:
        while self._streams:
            if found := self._streams[0].read(size):
                return found
            self._streams.pop(0).close()
        return b""


def parts_in(folder: Path) -> list[Path]:
    """The parts in order. Exits if there are none, or if a number is missing."""
    found = sorted(folder.glob(f"{PREFIX}*"))
    wanted = [f"{PREFIX}{number:02d}" for number in range(len(found))]
    if not found:
        raise SystemExit(f"{folder}: expected the parts {PREFIX}00 and so on, found none: copy them there")
    if [path.name for path in found] != wanted:
        names = ", ".join(path.name for path in found)
        raise SystemExit(f"{folder} has {names}: expected {wanted[0]} to {wanted[-1]} without a gap")
    return found


def unpack(parts: Path, site: Path) -> None:
    """Unpack into `site`, and replace an onnxruntime there. Exits with the reason if that does not work."""
    found = parts_in(parts)
    for old in site.glob("onnxruntime*"):  # the metadata of two versions would contradict each other
        shutil.rmtree(old)
    safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(fileobj=_Joined(found), mode="r|xz") as archive:
            archive.extractall(site, **safe)
    except tarfile.CompressionError as error:
        raise SystemExit(
            f"this Python cannot read xz ({error}): it lacks the module lzma; choose another with --python"
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SystemExit(
            f"{found[0]} to {found[-1].name} are not a complete archive ({error}): the last part may be missing, or a "
            "part may be cut short; copy them again"
        ) from None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("expected two arguments: PARTS and SITE")
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
