"""Keeps every measured turn in a file, so that a stopped run can be resumed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.worker import ROOT

__all__ = ["Journal", "sources"]


def sources() -> str:
    """A digest of the measured and the measuring code. Turns from other code belong to another run."""
    found = hashlib.sha256()
    for folder in ("runtime", "export", "models", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


class Journal:
    """A file with one JSON object per line: a turn of a system in a round, or the rate of matrix multiplication.

    `run` identifies the code, settings, versions and machine. Lines of other runs stay in the file, and are ignored.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], *, resume: bool) -> None:
        self._path = path
        self._run = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
        if path.is_file() and not resume:
            path.rename(path.with_name(f"{path.stem}-until-{time.time_ns()}{path.suffix}"))
        lines = self._read()
        self._lines = [line for line in lines if line["run"] == self._run]
        self.foreign = len(lines) - len(self._lines)
        """The number of lines from other code, settings, versions or another machine."""

    def turns(self, rounds: int) -> list[dict[str, dict[str, Any]]]:
        """The turns by system, of every round; at least `rounds` of them."""
        found = [line for line in self._lines if "system" in line]
        made: list[dict[str, dict[str, Any]]] = [
            {} for _ in range(max([rounds, *(line["round"] + 1 for line in found)]))
        ]
        for line in found:
            made[line["round"]][line["system"]] = line["turn"]
        return made

    def peaks(self) -> dict[int, float]:
        """TFLOP/s of matrix multiplication by round."""
        return {line["round"]: line["tflops"] for line in self._lines if "tflops" in line}

    def absent(self) -> dict[str, str]:
        """System without a turn → the last reason for that."""
        measured = {line["system"] for line in self._lines if "system" in line}
        told = {line["absent"]: line["reason"] for line in self._lines if "absent" in line}
        return {name: reason for name, reason in told.items() if name not in measured}

    def seconds(self, system: str) -> float:
        """The longest turn of a system in seconds; of any system if it had none, and 0 without any turn."""
        taken = [(line["system"], line["seconds"]) for line in self._lines if "system" in line]
        own = [seconds for name, seconds in taken if name == system]
        return max(own or [seconds for _, seconds in taken], default=0.0)

    def add(self, number: int, **line: Any) -> None:
        """Write a line of the round `number` to the file."""
        self._lines.append({"run": self._run, "round": number, **line})
        # If its writer was killed, the last line may be incomplete.
        is_cut = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if is_cut else "") + json.dumps(self._lines[-1]) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        found = []
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:  # its writer was killed
                continue
        return found
