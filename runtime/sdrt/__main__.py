"""The `sdrt` command; also `python -m sdrt`, where its script is not on the path."""

from __future__ import annotations

import sys


def main() -> None:
    """Run it. Ctrl-C ends it with 130 from the first moment, while its modules are still being read."""
    try:
        from sdrt.cli import main as command
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    command(prog_name="sdrt")


if __name__ == "__main__":
    main()
