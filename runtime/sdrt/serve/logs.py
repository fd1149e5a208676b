"""Logs of the server: lines for people, or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["set_up"]


class _Lines(logging.Formatter):
    """A line for a person: the time, the level if it is a warning, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        if facts is None:
            trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
            return f"{clock} {level}{record.getMessage()}{trace}"
        return (
            f"{clock} {facts['method']} {facts['path']} {facts['status']} {facts['seconds']:.3f} s "
            f"{facts['client'] or '-'} {facts['request_id']}"
        )


class _Json(logging.Formatter):
    """An object for a program."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **(getattr(record, "facts", None) or {}),
        }
        if record.exc_info:
            row["trace"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


def set_up(*, as_json: bool, quiet: bool) -> None:
    """Write the server's logs to stderr: as lines or JSON, and only warnings if `quiet`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Lines())
    own = logging.getLogger("sdrt.serve")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.WARNING if quiet else logging.INFO)
    errors = logging.getLogger("uvicorn.error")
    errors.handlers, errors.propagate = [handler], False
    errors.setLevel(logging.WARNING)
