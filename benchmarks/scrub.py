"""Text without the paths of the machine it was written on, so that it may be kept with the project.

python benchmarks/scrub.py < LOG          # pytest's short summary and its last line
python benchmarks/scrub.py --all < TEXT   # all of it
python benchmarks/scrub.py JSON...        # records, in their place
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["scrubbed", "scrubbed_record", "summary"]

# Of an absolute path the last part, which says what it is; URLs and fractions are none.
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@=-]+)+[/\\]([\w.+@=-]+)")
_SUMMARY = re.compile(r"^=+ short test summary info =+$", re.MULTILINE)


def scrubbed(text: str) -> str:
    """`text` with every absolute path cut to "…/" and its last part."""
    return _PATH.sub(r"…/\1", text)


def scrubbed_record(value: Any) -> Any:
    """The same of every text in a record."""
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, Mapping):
        return {key: scrubbed_record(part) for key, part in value.items()}
    return [scrubbed_record(part) for part in value] if isinstance(value, (list, tuple)) else value


def summary(log: str) -> str:
    """What pytest's log says of each test that did not pass, and its last line."""
    lines = [line for line in log.splitlines() if line.strip()]
    found = list(_SUMMARY.finditer(log))
    told = log[found[-1].start() :].splitlines() if found else lines[-1:]
    return scrubbed("\n".join(told)) + "\n"


def main(arguments: Sequence[str]) -> None:
    if [*arguments] in ([], ["--all"]):
        sys.stdout.write((scrubbed if arguments else summary)(sys.stdin.read()))
        return
    for path in map(Path, arguments):
        record = scrubbed_record(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
