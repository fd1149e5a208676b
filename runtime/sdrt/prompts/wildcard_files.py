"""The files of wildcards: a folder of texts with an option in each line, as Dynamic Prompts reads them."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import stat
from pathlib import Path

from sdrt.common.messages import brief
from sdrt.errors import RequestError

__all__ = ["WildcardFiles"]

_OPTION = "--wildcards"
_MOST_FILES = 100_000
_MOST_BYTES = 16 << 20


class WildcardFiles:
    """The ``.txt`` files below a folder. The name of a file is its path in the folder, without the extension.

    Blank lines and lines that begin with # are no options. Only files within the folder are read: links that lead out
    of it are not followed, and names are compared with those of the files that are there.

    Raises:
        RequestError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RequestError.expected(
                f"{_OPTION} {brief(os.fspath(folder))} is not a folder",
                "the folder with the files of wildcards",
                argument=_OPTION,
                path=self.folder,
            )
        self._files: dict[str, Path] | None = None
        self._unread = 0
        self._values: dict[str, list[str]] = {}

    def values(self, pattern: str) -> list[str]:
        """Return the options that a name means. It may be a pattern: ``colors*``, ``colors/*``.

        If the folder has no such file, those of its folders are searched. Equal options count once.

        Raises:
            RequestError: no file has this name or an option, or one cannot be read.
        """
        if pattern not in self._values:
            names = self._names(pattern)
            options = dict.fromkeys(line for name in names for line in _read(self._index[name]))
            if not options:
                raise self._none(pattern, names)
            self._values[pattern] = list(options)
        return self._values[pattern]

    def _names(self, pattern: str) -> list[str]:
        wanted = re.sub(r"[\\/]+", "/", pattern).strip("/")
        if ".." in wanted.split("/"):
            raise RequestError.advised(
                f"the wildcard {brief(f'__{pattern}__')} leads out of {brief(os.fspath(self.folder))}",
                "put the file into this folder",
                argument=_OPTION,
                path=self.folder,
            )
        if wanted in self._index:
            return [wanted]
        return self._matching(wanted) or self._matching(f"*/{wanted}")

    def _matching(self, pattern: str) -> list[str]:
        return [name for name in self._index if fnmatch.fnmatchcase(name.lower(), pattern.lower())]

    @property
    def _index(self) -> dict[str, Path]:
        """The files by name, in the order of their names."""
        if self._files is None:
            self._files = dict(sorted(self._found().items()))
        return self._files

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        root = self.folder.resolve()
        for where, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(where, name) for name in files):
                if path.suffix.lower() == ".txt" and _is_within(path, root):
                    found[path.relative_to(root).with_suffix("").as_posix()] = path
                self._unread += path.suffix.lower() in (".yaml", ".yml", ".json")
            if len(found) > _MOST_FILES:
                raise RequestError.expected(
                    f"{_OPTION} {brief(os.fspath(self.folder))} has more than {_MOST_FILES} files",
                    "a folder with fewer files",
                    argument=_OPTION,
                    path=self.folder,
                )
        return found

    def _none(self, pattern: str, names: list[str]) -> RequestError:
        where = brief(os.fspath(self.folder))
        if names:
            problem = f"{brief(f'{names[0]}.txt')} in {where} has no options"
            return RequestError.expected(
                problem, "an option in each line", argument=_OPTION, path=self._index[names[0]]
            )
        close = difflib.get_close_matches(pattern, list(self._index)[:10_000], n=3)
        listed = close or list(self._index)[:5]
        known = f"; it has {', '.join(listed)}" if listed else "; it has no .txt files"
        known += (
            f", and {self._unread} .yaml or .json files, which sdrt does not read" if self._unread else ""
        )
        return RequestError.expected(
            f"no file for the wildcard {brief(f'__{pattern}__')} in {where}",
            f"{pattern}.txt{known}",
            argument=_OPTION,
            path=self.folder,
        )


def _is_within(path: Path, root: Path) -> bool:
    """Whether a path is a file, not a device or a pipe, and no link that leads out of `root`."""
    try:
        return path.resolve().is_relative_to(root) and stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _read(path: Path) -> list[str]:
    """Return the options in a file, one for each line."""
    shown = brief(os.fspath(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(
            f"{_OPTION}: {shown} cannot be read: {error.strerror or error}",
            argument=_OPTION,
            path=path,
            fits="a text file that can be read",
        ) from error
    if len(data) > _MOST_BYTES:
        raise RequestError.expected(
            f"{_OPTION}: {shown} has more than {_MOST_BYTES >> 20} MB",
            "a smaller file",
            argument=_OPTION,
            path=path,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError.advised(
            f"{_OPTION}: {shown} is not UTF-8 text",
            "save it as UTF-8",
            argument=_OPTION,
            path=path,
        ) from error
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))
    return [line for line in lines if line and not line.startswith("#")]
