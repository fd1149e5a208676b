"""The result of one check of `sdrt doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Status"]


class Status(str, Enum):
    """How serious a finding is. Only an error changes the exit code."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `remedy` names the command to run when something is wrong."""

    name: str
    detail: str
    status: Status = Status.OK
    remedy: str = ""
    exit_code: int = 0
