#!/usr/bin/env bash
# webuiapi: a request without ControlNet units sends those of the request before, and uses its ControlNet again.
#
# One would expect: `txt2img(prompt)` after `txt2img(prompt, controlnet_units=[unit])` makes an image of the text alone.
# What happens: the argument `alwayson_scripts={}` is one dictionary for all calls, and each call writes into it. The units
# stay there. They are replaced by none only if the server lists a script "controlnet m2m", which is another script of the
# extension than the one that the units are for. A server that lists "controlnet" alone gets the old units with each
# further request, also from another client object. `img2img` does the same with a dictionary of its own. What `roop=`,
# `reactor=` and `sag=` add also stays there, and nothing replaces it.
#
# Exits with 1 when the behaviour changes. Uses a server of its own, which only notes what it gets.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  webuiapi==0.9.17 pillow==13.0.0 requests==2.34.2
"$work/venv/bin/python" - <<'PY'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import webuiapi
from PIL import Image

scripts, seen = ["controlnet"], []


class Handler(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"txt2img": scripts, "img2img": scripts})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append(len(body["alwayson_scripts"].get("ControlNet", {}).get("args", [])))
        self.answer({"images": [], "parameters": {}, "info": "{}"})

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
unit = webuiapi.ControlNetUnit(image=Image.new("RGB", (8, 8)), model="canny")


def client():
    return webuiapi.WebUIApi(port=server.server_port)


client().txt2img(prompt="a", controlnet_units=[unit])
client().txt2img(prompt="b")
scripts.append("controlnet m2m")
client().txt2img(prompt="c")
print("webuiapi 0.9.17: units in three requests, of which the first has one:", seen)
sys.exit(0 if seen == [1, 1, 0] else 1)
PY
