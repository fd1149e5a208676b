#!/usr/bin/env bash
# numpy 2.2.6 and 2.4.6 (OpenBLAS in their wheels): where no more threads can be started, `import numpy` acts as if the user
# had pressed Ctrl-C.
#
# One would expect: a MemoryError or an ImportError that says so, or a warning and fewer threads.
#
# What happens: OpenBLAS starts its threads when the library is loaded. If the system refuses one (a limit on processes or
# on memory, as containers have), OpenBLAS prints advice and sends its own process SIGINT, the signal of Ctrl-C. numpy 2.4.6
# then raises KeyboardInterrupt, which `except Exception` lets pass and which commands report as "interrupted". In numpy
# 2.2.6 it meets another import, and is lost: the error is 'PyCapsule_Import could not import module "datetime"', and on top of
# it "you should not try to import numpy from its source directory". It takes two cores, because OpenBLAS starts a thread for each core but one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6
# The newer one needs Python 3.11.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --target "$folder/newer" numpy==2.4.6 || true
cat > "$folder/try.py" <<'PY'
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
try:
    import numpy
except BaseException as error:
    print("import numpy raised", type(error).__name__, *str(error).strip().splitlines()[:1])
    while error := error.__cause__ or error.__context__:
        first = [line for line in str(error).splitlines() if line.startswith("Original error")] or [error]
        print("  after", type(error).__name__, first[0])
else:
    print("numpy", numpy.__version__, "was imported", flush=True)
PY
try() {
    # A thread's stack of 1 GB does not fit into a limit of 600 MB, in which numpy itself has plenty of room.
    (
        ulimit -s 1048576
        ulimit -d 600000
        OPENBLAS_NUM_THREADS=2 PYTHONPATH=$1 "$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors"
    ) || true
    head -1 "$folder/errors"
}
echo "numpy 2.2.6:"
try "" | tee "$folder/out"
grep -q 'could not import module "datetime"' "$folder/out"
if [ -d "$folder/newer/numpy" ]; then
    echo "numpy 2.4.6:"
    try "$folder/newer" | tee "$folder/out"
    grep -q "raised KeyboardInterrupt" "$folder/out"
fi
