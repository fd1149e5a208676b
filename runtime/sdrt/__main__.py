"""The entry point of `sdrt`, and of `python -m sdrt`, which works if the script is not on the PATH."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. Ctrl-C exits with code 130, even while the modules are still being imported."""
    try:
        from sdrt.cli import main as command
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    command(prog_name="sdrt")


if __name__ == "__main__":
    main()
