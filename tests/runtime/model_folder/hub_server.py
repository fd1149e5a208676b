"""A local server that speaks the part of the hub's protocol that huggingface_hub needs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

COMMIT = "a" * 40


CONFIGS = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"]


CONFIGS += [f"{part}/config.json" for part in ("text_encoder", "unet", "vae")]


WEIGHTS = ["text_encoder/model.safetensors", "safety_checker/model.safetensors"]


WEIGHTS += [f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]


OTHERS = [
    "unet/diffusion_pytorch_model.bin",
    "v1-5-pruned.ckpt",
    "safety_checker/pytorch_model.bin",
    "README.md",
]


REPOSITORIES = {
    "owner/both": [*CONFIGS, *WEIGHTS, *(name.replace(".safe", ".fp16.safe") for name in WEIGHTS), *OTHERS],
    "owner/half": [*CONFIGS, *(name.replace(".safe", ".fp16.safe") for name in WEIGHTS)],
    "owner/onnx": [*CONFIGS, "unet/model.onnx", "unet/model.onnx_data", "sdrt.json", "unet/model.xml"],
}


REPOSITORIES["owner/checked"] = [
    *REPOSITORIES["owner/onnx"],
    *("safety_checker/config.json", "safety_checker/model.onnx", "safety_checker/model.onnx_data"),
]
ADDED = [
    *("controlnet/config.json", "controlnet/model.onnx", "controlnet_2/model.onnx_data"),
    *("ip_adapter/config.json", "ip_adapter/model.onnx", "ip_adapter_2/model.onnx_data"),
    *("image_encoder/config.json", "image_encoder/model.onnx_data"),
    *("unet/controlled.onnx", "unet/prompted.onnx", "unet/prompted_controlled.onnx"),
]
REPOSITORIES["owner/added"] = [*REPOSITORIES["owner/onnx"], *ADDED, "controlnet/model.safetensors"]
REPOSITORIES["owner/cut"] = REPOSITORIES["owner/onnx"]


REPOSITORIES["owner/bf16"] = [*CONFIGS, *(name.replace(".safe", ".bf16.safe") for name in WEIGHTS)]


# As diffusers' first converter and others name the weights of a graph; the graph itself names them too.
REPOSITORIES["owner/legacy"] = ["model_index.json", "unet/model.onnx", "unet/weights.pb", "unet/other.pb"]


REPOSITORIES["owner/stars"] = ["model_index.json", "unet/model.onnx", "unet/other.pb"]


def graph(location: str) -> bytes:
    """An ONNX file with one operator and one weight, which is in the file `location`."""
    entry = field(1, b"location") + field(2, location.encode())
    tensor = field(8, b"w") + field(13, entry)
    return field(7, field(1, field(4, b"Neg")) + field(5, tensor))


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


GRAPHS = {"owner/legacy": graph("weights.pb"), "owner/stars": graph("*")}


REPOSITORIES["owner/single"] = ["README.md", "model.safetensors", "sub folder/v1.5-pruned.safetensors"]


REFUSALS = {"owner/gated": (403, "GatedRepo"), "owner/missing": (404, "RepoNotFound")}


class Hub(BaseHTTPRequestHandler):
    """Lists a repository at `/api/models/ID/revision/REV` and serves its files at `/ID/resolve/REV/FILE`.

    huggingface_hub 2 asks for the list at `/api/models/ID/tree/REV`.
    """

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(path[:2]), path[2:]
        if name in REFUSALS:
            status, code = REFUSALS[name]
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})
        elif rest and rest[1] not in ("main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif rest and rest[0] == "resolve" and unquote("/".join(rest[2:])) not in REPOSITORIES[name]:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif rest and rest[0] == "resolve":
            content = "/".join(rest[2:]).encode()
            if content.endswith(b"model.onnx"):
                content = GRAPHS.get(name, content)
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            promised = len(content) + (100 if name == "owner/cut" and rest[-1] == "model.onnx" else 0)
            headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Length": str(promised)}
            self._send(200, content, headers)
            self.close_connection = promised > len(content)
        elif rest and rest[0] == "tree":
            tree = [
                {"type": "file", "path": file, "size": len(file), "oid": file} for file in REPOSITORIES[name]
            ]
            self._send(200, json.dumps(tree).encode(), {})
        else:
            siblings = [{"rfilename": file} for file in REPOSITORIES[name]]
            self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def ask(hub: str, home: Path, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `sdrt.model_folder.hub.CALL` in a new process, because huggingface_hub reads its variables at import."""
    script = (
        "import sdrt.model_folder.hub as h, sdrt.model_folder.hub_file as f, sdrt\n"
        f"try: print({call if call.startswith('f.') else f'h.{call}'})\n"
        "except sdrt.SdrtError as e: exit(str(e))"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables = kept | {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
