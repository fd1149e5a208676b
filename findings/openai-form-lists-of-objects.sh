#!/usr/bin/env bash
# openai (the official Python client): in requests with files, different lists of objects become the same bytes.
#
# One would expect: `extra_body` is "additional JSON properties to the request". Requests with files are forms, and a list of
# objects becomes fields from which the server can build the list again.
#
# What happens: the objects are sent as columns. `[{"name": "a"}, {"name": "b", "weight": 0.5}]` becomes lora[][name]=a,
# lora[][name]=b, lora[][weight]=0.5. `[{"name": "a", "weight": 0.5}, {"name": "b"}]` becomes the same, so that no server
# can tell whose the weight is. A list of texts loses those that are empty before the first that is not:
# `["", "b"]` is sent as `["b"]`, but `["b", ""]` as it is (`_serialize_multipartform` takes an empty value for none).
#
# Exits with 1 when the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import email
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

received = []


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        kind = self.headers["Content-Type"]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        form = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        received.append(
            [
                (part.get_param("name", header="Content-Disposition"), part.get_payload())
                for part in form.get_payload()
                if part.get_filename() is None
            ]
        )
        answer = b'{"created": 0, "data": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")


def sent(**extra):
    """The fields of a form, without those of files and the prompt."""
    client.images.edit(image=b"an image", prompt="a", extra_body=extra)
    return [field for field in received.pop() if field[0] != "prompt"]


print("openai", openai.__version__)
second = sent(lora=[{"name": "a"}, {"name": "b", "weight": 0.5}])
first = sent(lora=[{"name": "a", "weight": 0.5}, {"name": "b"}])
print("the weight is b's:", second)
print("the weight is a's:", first)
before, after = sent(tags=["", "b"]), sent(tags=["b", ""])
print('["", "b"]:', before)
print('["b", ""]:', after)
assert first == second == [("lora[][name]", "a"), ("lora[][name]", "b"), ("lora[][weight]", "0.5")]
assert before == [("tags[]", "b")]
assert after == [("tags[]", "b"), ("tags[]", "")]
PYTHON
