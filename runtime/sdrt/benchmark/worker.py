"""The measuring process: `python -m sdrt.benchmark.worker` reads a job on stdin and reports on stdout, line by line.

Both are JSON. A line is {"notice": text}, {"failed": type, "message": text, "facts": attributes} or {"result": object},
which comes last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from sdrt.benchmark.capacity import probe
from sdrt.benchmark.configurations import Configuration, Rules
from sdrt.benchmark.measure import Model, measure
from sdrt.benchmark.ort_profile import profile
from sdrt.errors import OutOfMemoryError, SdrtError

__all__ = ["main"]

_WORK = {"measure": measure, "profile": profile, "memory": probe}


def main() -> None:
    """Do the job, and report sdrt's own errors. Other errors end this process."""
    asked = sys.stdin.read()
    if not asked:  # the parent was interrupted before it sent the job
        sys.exit(130)
    try:
        _tell("result", _do(json.loads(asked)))
    except SdrtError as error:
        facts = vars(error) | {"path": error.path and str(error.path)}
        _tell("failed", type(error).__name__, message=str(error), facts=facts)
    except MemoryError:
        _tell("failed", OutOfMemoryError.__name__, message="there is not enough memory to measure this")
    except KeyboardInterrupt:
        sys.exit(130)


def _do(job: Mapping[str, Any]) -> dict[str, Any]:
    return _WORK[job["work"]](
        Model(*job["model"]),
        Configuration(**job["configuration"]),
        Rules(**job["rules"]),
        lambda text: _tell("notice", text),
    )


def _tell(kind: str, value: object, **more: object) -> None:
    print(json.dumps({kind: value, **more}, allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
