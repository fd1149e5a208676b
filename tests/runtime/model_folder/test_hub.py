"""Downloads from a local server that speaks the part of the hub's protocol that huggingface_hub needs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from sdrt import ModelNotFoundError, RequestError
from sdrt.model_folder.hub import check_id
from sdrt.model_folder.hub_file import HubFile, download_file, hub_file

COMMIT = "a" * 40
CONFIGS = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"]
CONFIGS += [f"{part}/config.json" for part in ("text_encoder", "unet", "vae")]
WEIGHTS = ["text_encoder/model.safetensors"]
WEIGHTS += ["safety_checker/model.safetensors"]
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


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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


def files(folder: str) -> set[str]:
    root = Path(folder.strip())
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_torch_checkpoint_comes_without_its_weights(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/both')")
    assert files(done.stdout) == set(CONFIGS), done.stderr
    assert Path(done.stdout.strip()).name == COMMIT


def test_an_exported_model_comes_whole(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/onnx')")
    assert files(done.stdout) == {*CONFIGS, "unet/model.onnx", "unet/model.onnx_data", "sdrt.json"}, (
        done.stderr
    )


def test_weights_in_full_precision_are_preferred(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/both')")
    assert files(done.stdout) == {*CONFIGS, *WEIGHTS}, done.stderr


def test_half_precision_where_there_is_nothing_else(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/half')")
    assert files(done.stdout) == {*CONFIGS, *(name.replace(".safe", ".fp16.safe") for name in WEIGHTS)}, (
        done.stderr
    )


def test_bfloat16_where_there_is_nothing_else(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/bf16')")
    assert files(done.stdout) == {*CONFIGS, *(name.replace(".safe", ".bf16.safe") for name in WEIGHTS)}, (
        done.stderr
    )


def test_weights_that_a_graph_names_come_too(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/legacy')")
    assert files(done.stdout) == {"model_index.json", "unet/model.onnx", "unet/weights.pb"}, done.stderr


def test_a_graph_cannot_ask_for_every_file(hub: str, tmp_path: Path) -> None:
    """The name of a file is no pattern."""
    done = ask(hub, tmp_path, "download('owner/stars')")
    assert files(done.stdout) == {"model_index.json", "unet/model.onnx"}, done.stderr


def test_downloaded_models_are_used_offline(hub: str, tmp_path: Path) -> None:
    first = ask(hub, tmp_path, f"download('owner/onnx', revision='{COMMIT}')")
    again = ask(
        "http://127.0.0.1:1", tmp_path, f"download('owner/onnx', revision='{COMMIT}')", HF_HUB_OFFLINE="1"
    )
    assert again.stdout == first.stdout != ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("download('owner/missing')", "no folder and no hub model 'owner/missing': check the spelling"),
        ("download('owner/gated')", "gated: accept its terms"),
        ("download('owner/both', revision='nope')", "has no revision 'nope'"),
    ],
)
def test_errors_of_the_hub_name_the_remedy(hub: str, tmp_path: Path, call: str, words: str) -> None:
    done = ask(hub, tmp_path, call)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_offline_and_not_in_the_cache(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/both')", HF_HUB_OFFLINE="1")
    assert "not in the cache" in done.stderr


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = ask("http://127.0.0.1:1", tmp_path, "download('owner/both')")
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr


@pytest.mark.parametrize("name", ["model", "a/b/c", "owner/näme", "../etc", "", "x" * 5000])
def test_names_that_are_not_hub_ids(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a folder"):
        check_id(name)


@pytest.mark.parametrize(
    "name", ["nope.ckpt", "models/nope.pt", "./nope.safetensors", "nope.GGUF", "~x/nope.bin"]
)
def test_a_missing_file_is_no_misspelt_hub_id(name: str) -> None:
    for given in (name, Path(name)):
        with pytest.raises(ModelNotFoundError) as caught:
            check_id(given)
        assert str(caught.value).startswith(f"there is no file {given}: check the path")


def test_checkpoints_go_to_the_given_cache(hub: str, tmp_path: Path) -> None:
    done = ask(
        hub, tmp_path / "home", f"download_checkpoint('owner/both', cache_dir={str(tmp_path / 'mine')!r})"
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "mine"), done.stderr


def test_an_interrupted_download_says_try_again(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/cut')")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "hub model 'owner/cut' could not be downloaded (" in last
    assert last.endswith("): try again")


# --- single files -------------------------------------------------------------------------------------------

HUB_URL = "https://huggingface.co/owner/single"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("owner/single/model.safetensors", ("model.safetensors", None)),
        ("owner/single/sub/model.ckpt", ("sub/model.ckpt", None)),
        (f"{HUB_URL}/blob/main/model.safetensors", ("model.safetensors", "main")),
        (f"{HUB_URL}/resolve/main/model.safetensors?download=true", ("model.safetensors", "main")),
        (f"{HUB_URL}/resolve/refs%2Fpr%2F3/a%20b/m.safetensors", ("a b/m.safetensors", "refs/pr/3")),
        (f"{HUB_URL}/model.safetensors", ("model.safetensors", None)),
        ("huggingface.co/owner/single/blob/main/model.safetensors", ("model.safetensors", "main")),
        ("https://hf.co/owner/single/blob/v1/model.safetensors", ("model.safetensors", "v1")),
    ],
)
def test_files_on_the_hub(given: str, expected: tuple[str, str | None]) -> None:
    assert hub_file(given) == HubFile(name="owner/single", file=expected[0], revision=expected[1])


@pytest.mark.parametrize(
    "given",
    [
        "owner/name",
        "model.safetensors",
        "./owner/name/model.safetensors",
        "/a/b/c.safetensors",
        "a/../b/c.ckpt",
        "",
    ],
)
def test_what_is_no_file_on_the_hub(given: str) -> None:
    assert hub_file(given) is None
    assert hub_file(Path("owner/name/model.safetensors")) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://civitai.com/api/download/models/1", "not an address on the hub"),
        ("https://huggingface.co/owner/name", "no file on the hub"),
        ("https://huggingface.co/owner/name/tree/main", "no file on the hub"),
        ("https://huggingface.co/owner/name/blob/main/../../x.safetensors", "no file on the hub"),
    ],
)
def test_addresses_of_something_else(given: str, words: str) -> None:
    with pytest.raises(ModelNotFoundError, match=words):
        hub_file(given)


@pytest.mark.parametrize("name", ["model.safetensors", "sub folder/v1.5-pruned.safetensors"])
def test_a_single_file_comes_alone_with_its_commit(name: str, hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile(name='owner/single', file='{name}'))[0]")
    path = Path(done.stdout.strip())
    assert path.read_text() == name.replace(" ", "%20"), done.stderr
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile(name='owner/single', file='{name}'))[1]")
    assert done.stdout.strip() == COMMIT
    assert {file.name for file in path.parent.iterdir()} == {path.name}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("name='owner/single', file='x.safetensors'", "has no file 'x.safetensors': see https://"),
        ("name='owner/missing', file='x.safetensors'", "no file and no hub model 'owner/missing'"),
        ("name='owner/gated', file='x.safetensors'", "gated: accept its terms"),
        ("name='owner/single', file='model.ckpt'", "is a pickle"),
    ],
)
def test_errors_about_a_single_file(file: str, words: str, hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile({file}))")
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_revisions_are_refused() -> None:
    with pytest.raises(RequestError, match="leave one of them out"):
        download_file(HubFile(name="a/b", file="c.safetensors", revision="main"), revision="other")
