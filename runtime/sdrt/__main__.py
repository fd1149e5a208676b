"""The entry point of `sdrt`, and of `python -m sdrt`, which works if the script is not on the PATH."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command. Ctrl-C exits with code 130, even while the modules are still being imported."""

    pressed = False

    def stop(*_: object) -> None:
        nonlocal pressed
        pressed = True
        # Ctrl-C may be pressed again while the message is printed, and while Python ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, stop)
        from sdrt.supervised import supervise

        supervise()
        from sdrt.cli import main as command
        from sdrt.cli.process import keep_signals

        if pressed:
            # Python has swallowed the exception, as it does in callbacks of the import system.
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    keep_signals()
    command(prog_name="sdrt")


if __name__ == "__main__":
    main()
