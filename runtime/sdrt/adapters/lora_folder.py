"""The folder in which ``<lora:name>`` is looked up, by A1111's rules, and A1111's hash of a file."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sdrt.common.messages import brief, wrong_value
from sdrt.common.safetensors_file import read_header
from sdrt.errors import ModelNotFoundError, RequestError, SdrtError

__all__ = ["USUAL_NAME", "LoraFolder", "file_in", "short_hash"]

_SUFFIX = ".safetensors"
USUAL_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file that it saves."""
_MOST_FILES = 50_000
_BLOCK = 1 << 20
_SHORT = 12


class LoraFolder:
    """A folder of LoRA files, with its subfolders.

    Raises:
        ModelNotFoundError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not os.path.isdir(path):  # noqa: PTH112 - Path's own raises for names that are too long
            raise ModelNotFoundError.expected(
                f"lora_dir {path} is no folder",
                "a folder of .safetensors files",
                argument="lora_dir",
                path=path,
            )
        self.path = path

    def find(self, name: str) -> Path:
        """The file of a name.

        This is a file's name without its extension, also with its subfolders before it, or with "./" and all of its
        subfolders, or the name that the trainer wrote into the file (`ss_output_name`).

        Raises:
            RequestError: no file has the name, or several have it.
        """
        files = self.files()
        wanted = name.replace("\\", "/").removesuffix(_SUFFIX)
        found = [
            file
            for relative, file in files.items()
            if wanted in (relative, f"./{relative}", relative.rpartition("/")[2])
        ]
        found = found or [file for file in files.values() if _trained_as(file) == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise RequestError.advised(
                f"several files in {self.path} are called {brief(name)}",
                "write the subfolder before the name, as in <lora:folder/name:1> or <lora:./name:1>",
                argument="prompt",
                path=self.path,
            )
        raise self._missing(name, list(files))

    def names(self) -> list[str]:
        """The names by which `find` finds each file, in alphabetical order: with subfolders where names repeat.

        Raises:
            RequestError: the folder has too many files.
        """
        files = [relative for relative, _ in self._files()]
        own = Counter(relative.rpartition("/")[2] for relative in files)
        return sorted(
            name if own[name := relative.rpartition("/")[2]] == 1 else f"./{relative}" for relative in files
        )

    def of_hash(self, wanted: str) -> str | None:
        """The name by which `find` finds the file with this `short_hash`. None without such a file."""
        files = self.files()
        for relative, file in files.items():
            with suppress(SdrtError, OSError):
                if short_hash(file) == wanted and not set(relative) & set("<>:="):
                    own = relative.rpartition("/")[2]
                    same = [one for one in files if own == one.rpartition("/")[2]]
                    return own if len(same) == 1 else f"./{relative}"
        return None

    def files(self) -> dict[str, Path]:
        """Each file, by its path in the folder without the extension.

        Raises:
            RequestError: the folder has too many files.
        """
        return dict(self._files())

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Each file, by its path in the folder without the extension."""
        count = 0
        for folder, _, names in os.walk(self.path, followlinks=True):
            for name in sorted(names):
                count += 1
                if count > _MOST_FILES:
                    raise RequestError.expected(
                        f"lora_dir {self.path} has more than {_MOST_FILES} files",
                        "a folder of LoRAs",
                        argument="lora_dir",
                        path=self.path,
                    )
                if name.lower().endswith(_SUFFIX):
                    file = Path(folder, name)
                    yield file.relative_to(self.path).as_posix()[: -len(_SUFFIX)], file

    def _missing(self, name: str, known: list[str]) -> RequestError:
        close = difflib.get_close_matches(name[:64], [one.rpartition("/")[2] for one in known], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return RequestError.expected(
            f"no LoRA in {self.path} is called {brief(name)}{hint}",
            "the name of a .safetensors file in it",
            argument="prompt",
            path=self.path,
        )


def file_in(path: str | Path, name: str | None = None) -> Path:
    """The file `path`, or the file `name` in that folder, or the only one that it has.

    Raises:
        ModelNotFoundError: there is no such file, or the folder has several.
    """
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise wrong_value(
            "path", path, "a .safetensors file, a folder with one, or the id of a model on the hub"
        )
    found = Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises if there is no such user
    # Path's own is_dir() and is_file() raise an error for names that are too long.
    if not os.path.isdir(found):  # noqa: PTH112
        if not os.path.isfile(found):  # noqa: PTH113
            raise ModelNotFoundError.expected(
                f"there is no LoRA file {found}",
                "the path of a .safetensors file",
                argument="path",
                path=found,
            )
        return found
    names = sorted(one.name for one in found.iterdir() if one.name.lower().endswith(_SUFFIX))
    chosen = [name] if name else [one for one in names if one == USUAL_NAME] or names
    if len(chosen) != 1 or not os.path.isfile(found / chosen[0]):  # noqa: PTH113
        listed = ", ".join(names[:8]) or "none"
        lacks = f"file {brief(name)}" if name else "single .safetensors file to take"
        raise ModelNotFoundError.advised(
            f"{found} has no {lacks} (it has {listed})",
            f"name one as FOLDER/FILE{_SUFFIX}, or with weight_name in Python",
            joint="; ",
            argument="weight_name",
            path=found,
        )
    return found / chosen[0]


def _trained_as(path: Path) -> str | None:
    """The name that the trainer gave a file. None if it says none, or cannot be read."""
    try:
        state = path.stat()
        return _output_name(path, state.st_size, state.st_mtime_ns)
    except (SdrtError, OSError):
        return None


@functools.lru_cache(maxsize=4096)
def _output_name(path: Path, size: int, time: int) -> str | None:
    return read_header(path).metadata.get("ss_output_name")


def short_hash(path: Path) -> str:
    """A1111's hash of a file, of 12 hex digits: that of its tensors, without the header.

    Raises:
        UnsupportedModelError: it is not a safetensors file.
        OSError: it cannot be read.
    """
    state = path.stat()
    return _short_hash(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _short_hash(path: Path, size: int, time: int) -> str:
    said = read_header(path).metadata.get("sshs_model_hash", "")
    if re.fullmatch(r"[0-9a-fA-F]{64}", said):
        return said[:_SHORT].lower()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:_SHORT]
