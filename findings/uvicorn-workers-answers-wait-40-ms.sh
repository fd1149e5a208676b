#!/usr/bin/env bash
# uvicorn: with `--workers 2`, every answer on a connection that is kept open comes 40 ms later than with one process.
#
# One would expect: two processes answer no later than one. asyncio's documentation says that TCP_NODELAY is set by
# default on all TCP connections, so an answer in two parts is sent at once.
# What happens: asyncio sets it only where the socket's `proto` is IPPROTO_TCP. With one process, asyncio makes the
# socket itself, with that `proto`. For several, uvicorn binds the socket first, as `socket.socket(family=...)`, whose `proto`
# is 0, and accepted connections inherit that. uvicorn sends the head and the body in two parts. So the kernel holds back the
# second until the client has confirmed the first, which clients on Linux put off for 40 ms. The same holds for every socket
# that a program makes this way and passes to `uvicorn.Server.run(sockets=[...])` or `asyncio.start_server(sock=...)`.
# Seen with uvicorn 0.54.0 on Python 3.11, Linux: median 0.7 ms with one process, 44 ms with two.
#
# Exits with 1 when the behaviour changes. Needs Linux.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat > "$work/app.py" <<'PY'
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
PY
cat > "$work/ask.py" <<'PY'
import json
import socket
import statistics
import subprocess
import sys
import time
from http.client import HTTPConnection


def median_ms(workers: int) -> float:
    """The median time of a request, of sixty on one connection."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--port", str(port), "--workers", str(workers), "--loop", "asyncio", "--http", "h11", "--lifespan", "off"]
    process = subprocess.Popen([sys.executable, "-m", "uvicorn", "app:app", "--log-level", "error", *words])
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        end = time.monotonic() + 40
        while True:
            try:
                connection.connect()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        taken = []
        for number in range(60):
            started = time.perf_counter()
            connection.request("POST", "/", json.dumps({"number": number}))
            connection.getresponse().read()
            taken.append(1000 * (time.perf_counter() - started))
        return statistics.median(taken)
    finally:
        process.terminate()
        process.wait(20)


one, two = median_ms(1), median_ms(2)
print(f"one process: {one:.1f} ms; two processes: {two:.1f} ms")
as_described = one < 30 < two < 100
print("as described" if as_described else "the behaviour has changed")
sys.exit(0 if as_described else 1)
PY
cd "$work" && "$work/venv/bin/python" ask.py
