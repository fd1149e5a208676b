"""This module removes the paths of a machine from texts and records, so that they can be published.

python -m benchmarks remove-paths < LOG          # prints pytest's short summary and its last line
python -m benchmarks remove-paths --all < TEXT   # prints all of the text
python -m benchmarks remove-paths JSON...        # rewrites records in place
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["record_without_paths", "summary", "without_paths"]

# An absolute path, with its last part as the group. URLs and fractions do not match.
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@=-]+)+[/\\]([\w.+@=-]+)")
_SUMMARY = re.compile(r"^=+ short test summary info =+$", re.MULTILINE)


def without_paths(text: str) -> str:
    """`text` with every absolute path shortened to "…/" and its last part."""
    return _PATH.sub(r"…/\1", text)


def record_without_paths(value: Any) -> Any:
    """A copy of a record with `without_paths` applied to every text."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, Mapping):
        return {key: record_without_paths(part) for key, part in value.items()}
    return [record_without_paths(part) for part in value] if isinstance(value, (list, tuple)) else value


def summary(log: str) -> str:
    """pytest's short summary of the tests that did not pass, and the last line of its log."""
    lines = [line for line in log.splitlines() if line.strip()]
    found = list(_SUMMARY.finditer(log))
    told = log[found[-1].start() :].splitlines() if found else lines[-1:]
    return without_paths("\n".join(told)) + "\n"


def main(arguments: Sequence[str]) -> None:
    if [*arguments] in ([], ["--all"]):
        sys.stdout.write((without_paths if arguments else summary)(sys.stdin.read()))
        return
    for path in map(Path, arguments):
        record = record_without_paths(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
