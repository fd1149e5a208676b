"""Keys that requests must have. Only their hashes are kept."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdrt.errors import RequestError, SdrtError

__all__ = ["Keys", "key_of_header", "new_key", "read_keys"]

_FEWEST = 16  # characters: shorter ones could be guessed
_LINE = re.compile(r"([A-Za-z0-9_.-]{1,64}):sha256:([0-9a-f]{64})(:priority)?")
_FITS = "lines of NAME:sha256:HASH, as sdrt serve --new-key NAME prints them, optionally with :priority at the end"


def _hash(key: str) -> bytes:
    """The hash of a key. Keys are long and random, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True)
class Keys:
    """The hashes of keys, with their names.

    Attributes:
        hashes: the names and hashes.
        first: the names of the keys whose jobs may go before those of others.
    """

    hashes: tuple[tuple[str, bytes], ...] = ()
    first: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.hashes)

    @property
    def names(self) -> frozenset[str]:
        """The names of the keys."""
        return frozenset(name for name, _ in self.hashes)

    def may_go_first(self, name: str) -> bool:
        """Whether jobs of a key may have a priority above 0. Without keys, those of anyone may."""
        return not self.hashes or name in self.first

    def name_of(self, key: str) -> str | None:
        """The name of a key. None for one that is not known. Takes the same time for every key."""
        found, given = None, _hash(key)
        for name, known in self.hashes:
            if hmac.compare_digest(given, known):
                found = name
        return found

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """Keys that are given as they are.

        Raises:
            RequestError: a key is too short.
        """
        listed = tuple(keys)
        if any(len(key) < _FEWEST for key in listed):
            raise RequestError(
                f"a key has fewer than {_FEWEST} characters: make one with sdrt serve --new-key NAME",
                argument="api_key",
            )
        return cls(tuple((f"key-{number}", _hash(key)) for number, key in enumerate(listed, start=1)))

    def __add__(self, other: Keys) -> Keys:
        """Both. Raises `RequestError` if a name is in both: clients would see each other's jobs."""
        if twice := self.names & other.names:
            raise RequestError.advised(
                f"two keys are called {min(twice)}", "choose another name in the file", argument="key_file"
            )
        return Keys(self.hashes + other.hashes, self.first | other.first)


def read_keys(path: Path) -> Keys:
    """The keys of a file with a line for each, `NAME:sha256:HASH`. Empty lines and those that begin with # are skipped.

    With `:priority` at the end of its line, jobs of a key may go before those of others.

    Raises:
        RequestError: a line is something else, or there is no key: the server would then ask for none.
        SdrtError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise SdrtError(f"{path} cannot be read: {error}", path=path) from error
    hashes, first = [], set()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise RequestError.expected(
                f"line {number} of {path} is no key", _FITS, argument="api_keys", path=path
            )
        hashes.append((found[1], bytes.fromhex(found[2])))
        if found[3]:
            first.add(found[1])
    if not hashes:
        raise RequestError.expected(f"{path} has no keys", _FITS, argument="api_keys", path=path)
    return Keys(tuple(hashes), frozenset(first))


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the line that a file of keys has for it.

    Raises:
        RequestError: the name has other characters than letters, digits, dots, underscores and hyphens.
    """
    key = f"sdrt-{secrets.token_urlsafe(32)}"
    line = f"{name}:sha256:{_hash(key).hex()}"
    if _LINE.fullmatch(line) is None:
        raise RequestError.expected(
            f"{name!r} is no name of a key",
            "letters, digits, dots, underscores and hyphens",
            argument="new_key",
        )
    return key, line


def key_of_header(authorization: str) -> str | None:
    """The key in an `Authorization` header: `Bearer KEY`, or the password of `Basic`, as clients of A1111 send it."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeError):
        return None
