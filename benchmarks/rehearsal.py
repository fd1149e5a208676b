"""This script makes the input of `gpu.sh --dry-run`: an archive in parts, a wheel, and a module that hides sdrt.

python -m benchmarks.rehearsal make FOLDER     # makes FOLDER/parts, FOLDER/wheels and FOLDER/hide
python -m benchmarks.rehearsal check           # checks that they were unpacked, and that sdrt is hidden
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

PART, WHEEL = "sdrt_rehearsal_part", "sdrt_rehearsal_wheel"
# A checkout on PYTHONPATH has no metadata of the distribution sdrt. This machine may have some.
_HIDE = '''"""Hides the metadata of the distribution sdrt."""
import importlib.metadata as metadata

_found = metadata.Distribution.from_name.__func__


def _from_name(cls, name):
    if name == "sdrt":
        raise metadata.PackageNotFoundError(name)
    return _found(cls, name)


metadata.Distribution.from_name = classmethod(_from_name)
'''


def make(folder: Path) -> None:
    """Make the parts, the wheel and the hiding module anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("parts", "wheels", "hide"):
        (folder / name).mkdir(parents=True)
    (folder / "hide" / "sitecustomize.py").write_text(_HIDE, encoding="utf-8")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        entry = tarfile.TarInfo(f"{PART}/__init__.py")
        archive.addfile(entry, io.BytesIO())
    half = len(packed.getvalue()) // 2
    for number, piece in enumerate((packed.getvalue()[:half], packed.getvalue()[half:])):
        (folder / "parts" / f"ort.tar.xz.{number:02d}").write_bytes(piece)
    _make_wheel(folder / "wheels")


def _make_wheel(folder: Path) -> None:
    metadata = f"{WHEEL}-1.dist-info"
    files = {
        f"{WHEEL}/__init__.py": "",
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {WHEEL}\nVersion: 1\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{metadata}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{metadata}/RECORD"))
    with zipfile.ZipFile(folder / f"{WHEEL}-1-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def check() -> None:
    """Exits if something was not unpacked, or if sdrt has metadata."""
    for name in (PART, WHEEL):
        if importlib.util.find_spec(name) is None:
            raise SystemExit(f"{name} was not unpacked into WORK/site, or that folder is not on the path")
    try:
        found = importlib.metadata.version("sdrt")
    except importlib.metadata.PackageNotFoundError:
        return
    raise SystemExit(f"sdrt {found} is installed: expected it hidden, as on a bare machine")


if __name__ == "__main__":
    make(Path(sys.argv[2])) if sys.argv[1] == "make" else check()
