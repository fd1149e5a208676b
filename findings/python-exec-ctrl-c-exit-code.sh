#!/usr/bin/env bash
# CPython 3.8 to 3.13: a program that has caught KeyboardInterrupt may lose its exit code long afterwards.
#
# One would expect: a program that catches KeyboardInterrupt goes on, and sys.exit(7) gives the exit code 7.
#
# What happens: if the exception passed through exec() of a text (as dataclasses and namedtuples are made, so during most
# imports), CPython notes an unhandled KeyboardInterrupt and never takes the note back. A program that was started with
# `python -m` then ends by killing itself with SIGINT, whatever it did in between: shells see 130, subprocess sees -2. The
# same file without -m exits with 7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv --without-pip "$folder/venv"
cat > "$folder/program.py" <<'PY'
import sys

try:
    exec("raise KeyboardInterrupt")  # as if Ctrl-C were pressed meanwhile
except KeyboardInterrupt:
    print("caught, and done with it", flush=True)
sys.exit(7)
PY
cd "$folder"
"$folder/venv/bin/python" --version
as_file=0 as_module=0
"$folder/venv/bin/python" program.py || as_file=$?
"$folder/venv/bin/python" -m program || as_module=$?
echo "exit code of python program.py: $as_file, of python -m program: $as_module"
[ "$as_file" = 7 ] && [ "$as_module" = 130 ]
