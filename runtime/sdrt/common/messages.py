"""Values in messages, shortened."""

from __future__ import annotations

__all__ = ["brief"]


def brief(value: object, limit: int = 60) -> str:
    """`repr(value)`, cut to `limit` characters. A value without a repr is named by its type."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Python refuses to write integers of more than 4300 digits.
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "…"
