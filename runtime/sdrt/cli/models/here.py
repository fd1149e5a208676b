"""The models in the working directory: exported folders, and checkpoints in files and folders.

sdrt reads only the headers of files of weights. A directory may have thousands of them, so `_MOST_FILES` and
`_MOST_SECONDS` limit how many it reads and for how long.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.cli.models.row import Row, folder_row
from sdrt.errors import ModelError, SdrtError

if TYPE_CHECKING:
    from sdrt.common.safetensors_file import SafetensorsFile

__all__ = ["Here", "visible_entries"]

_MOST_FILES, _MOST_SECONDS = 1000, 10.0
_DIFFUSERS = "diffusers checkpoint"
_NUMPY = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(kw_only=True)
class Here:
    """What is in the working directory.

    Attributes:
        rows: the models, and files and folders that look like one but cannot be used.
        left_out: how many other files of weights there are, by kind, such as LoRAs.
        unread: how many files were not read, because of a limit.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unread: int = 0

    @classmethod
    def found(cls) -> Here:
        """Read the working directory."""
        here = cls()
        with suppress(OSError):  # the working directory is gone or not readable
            entries = visible_entries(Path())
            here.rows += [row for entry in entries if (row := _of_folder(entry)) is not None]
            files = [entry for entry in entries if entry.suffix.lower() == ".safetensors" and _is_file(entry)]
            here._read(files)
        return here

    def _read(self, files: list[Path]) -> None:
        until = time.monotonic() + _MOST_SECONDS
        for count, path in enumerate(files):
            if count >= _MOST_FILES or time.monotonic() > until:
                self.unread = len(files) - count
                return
            self._add(path)

    def _add(self, path: Path) -> None:
        from sdrt.common.safetensors_file import read_header
        from sdrt.model_folder.file_kind import MODELS, check_header, kind_of

        try:
            file = read_header(path)
        except OSError as error:
            self._refuse(path, error.strerror or str(error))
            return
        except ModelError as error:
            self._refuse(path, str(error))
            return
        kind = kind_of(file)
        if kind is None or kind.what not in MODELS:
            self.left_out[kind.what if kind else "an unknown kind"] += 1
            return
        problem = None
        try:
            check_header(file)
        except ModelError as error:
            problem = str(error)
        self.rows.append(
            Row(
                model=_argument(path),
                where="here",
                path=str(path.absolute()),
                kind=kind.what.partition(" ")[2],
                base=kind.base or None,
                dtype=_dtype_of(file),
                bytes=max((entry.end for entry in file.tensors.values()), default=0),
                problem=problem,
            )
        )

    def _refuse(self, path: Path, problem: str) -> None:
        row = Row(
            model=_argument(path),
            where="here",
            path=str(path.absolute()),
            kind="safetensors file",
            problem=problem,
        )
        self.rows.append(row)


def visible_entries(parent: Path) -> list[Path]:
    """The entries of a folder without hidden ones, such as the folders that a killed export leaves."""
    return sorted(path for path in parent.iterdir() if not path.name.startswith("."))


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False


def _argument(path: Path, end: str = "") -> str:
    """The value for `-m`. A leading hyphen would begin an option, and a leading tilde a user's folder."""
    return f"./{path}{end}" if str(path).startswith(("-", "~")) else f"{path}{end}"


def _of_folder(folder: Path) -> Row | None:
    """The row of a folder. None if it is not a model."""
    from sdrt.model_folder.folder import denoiser_graphs
    from sdrt.model_folder.index import INDEX_NAME, check_checkpoint_index

    name = _argument(folder, "/")
    try:
        if any((folder / graph).is_file() for graph in denoiser_graphs()):
            return folder_row(name, "here", folder.absolute())
        if not (folder / INDEX_NAME).is_file():
            return None
    except (OSError, RuntimeError):  # a folder without permission, a link to itself
        return None
    family, problem = None, None
    try:
        family = check_checkpoint_index(folder).name
    except (SdrtError, OSError) as error:
        problem = str(error)
    return Row(
        model=name,
        where="here",
        path=str(folder.absolute()),
        kind=_DIFFUSERS,
        family=family,
        dtype=_dtype_of_folder(folder),
        bytes=sum(_sizes(folder)),
        problem=problem,
    )


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.glob("*/*"):
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size


def _dtype_of_folder(folder: Path) -> str | None:
    from sdrt.common.safetensors_file import read_header

    for path in sorted(folder.glob("unet/*.safetensors")):
        with suppress(OSError, ModelError):
            return _dtype_of(read_header(path))
    return None


def _dtype_of(file: SafetensorsFile) -> str | None:
    """The number type that most of a file's bytes have."""
    sizes = Counter[str]()
    for entry in file.tensors.values():
        sizes[entry.dtype] += entry.end - entry.start
    most = sizes.most_common(1)
    return _NUMPY.get(most[0][0], most[0][0].lower()) if most else None
