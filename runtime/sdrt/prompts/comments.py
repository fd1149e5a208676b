"""Comments in prompts, as A1111's web UI has them since 1.8."""

from __future__ import annotations

__all__ = ["without_comments"]


def without_comments(text: str) -> str:
    """Leave out what follows a # in each line, and lines that are nothing else."""
    if "#" not in text:
        return text
    lines = []
    for line in text.split("\n"):
        said, mark, _ = line.partition("#")
        if not mark or said.strip():
            lines.append(said.rstrip() if mark else line)
    return "\n".join(lines)
