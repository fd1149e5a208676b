"""Bundles: a program that knows only plan.json makes Python's image; also in JavaScript."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tokenizers
from click.testing import CliRunner
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.common.rng import Generator
from sdrt.errors import ExportError, IntegrityError, RequestError, UnsupportedModelError
from sdrt_export import write_bundle
from sdrt_export.bundle.web_runtime import VERSION

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "bundle.schema.json").read_text(encoding="utf-8"))
PROMPT = "a red circle"


def image_of(folder: Path, prompt: str, *, seed: int, negative: str = "", scale: float | None = None) -> Any:
    """An image [height, width, 3], by the loop of docs/bundle.md."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    sessions = {
        part: ort.InferenceSession(str(folder / plan[part]["graph"]), options(), ["CPUExecutionProvider"])
        for part in ("text_encoder", "unet", "step", "vae_decoder")
    }
    words, unet, vae = plan["tokenizer"], plan["unet"], plan["vae_decoder"]
    bpe = tokenizers.Tokenizer.from_file(str(folder / words["file"]))

    def encoded(text: str) -> Any:
        ids = bpe.encode(text, add_special_tokens=False).ids[: words["length"] - 2]
        ids = [words["start"], *ids, words["end"]]
        ids += [words["padding"]] * (words["length"] - len(ids))
        about = plan["text_encoder"]
        return sessions["text_encoder"].run(
            [about["output"]], {about["input"]: np.array([ids], about["input_type"])}
        )[0]

    guided = plan["guidance_scale"] is not None
    text = np.concatenate([encoded(one) for one in ([negative] if guided else []) + [prompt]])
    generator = Generator(seed)
    latents = generator.randn([1, *plan["latents"]]) * np.float32(plan["initial_scale"])
    sample = np.concatenate([latents * np.float32(plan["first_scale"])] * (2 if guided else 1))
    history = np.zeros((plan["step"]["history"], *latents.shape), np.float32)
    more = {"guidance_scale": np.array(scale or plan["guidance_scale"], np.float32)} if guided else {}
    for step in plan["steps"]:
        feeds = {
            unet["sample"]: sample,
            unet["timestep"]: np.array(step["timestep"], unet["timestep_type"]),
            unet["text"]: text,
        }
        output = sessions["unet"].run([unet["output"]], feeds)[0]
        noise = generator.randn(latents.shape) if step["draws_noise"] else np.zeros_like(latents)
        factors = np.array(step["factors"], np.float32)
        feeds = {"latents": latents, "output": output, "history": history, "noise": noise, "factors": factors}
        latents, history, sample = sessions["step"].run(None, {**feeds, **more})
    given = latents * np.float32(plan["final_scale"] * vae["factor"]) + np.float32(vae["shift"])
    made = sessions["vae_decoder"].run([vae["output"]], {vae["input"]: given})[0][0]
    return np.rint((made / 2 + 0.5).clip(0, 1) * 255).transpose(1, 2, 0).astype(int)


def options() -> Any:
    made = ort.SessionOptions()
    made.log_severity_level = 3  # it warns of an input that has a default
    return made


def own_image(model: str | Path, prompt: str, **settings: Any) -> Any:
    with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=lambda _: None) as pipeline:
        return np.asarray(pipeline(prompt, **settings).images[0]).astype(int)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle("shapes", tmp_path_factory.mktemp("bundle") / "shapes", num_inference_steps=6)


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler", "pndm", "euler_a", "lcm", "DPM++ 2M Karras"])
def test_the_loop_makes_python_s_image(scheduler: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 5, "scheduler": scheduler}
    folder = write_bundle("shapes", tmp_path / "bundle", **settings)
    own = own_image("shapes", PROMPT, seed=3, **settings)
    assert np.abs(image_of(folder, PROMPT, seed=3) - own).max() <= 1
    jsonschema.validate(json.loads((folder / "plan.json").read_text()), SCHEMA)


def test_prompts_seeds_and_the_scale_may_change(shapes: Path) -> None:
    own = own_image(
        "shapes",
        "a blue star",
        negative_prompt="red",
        guidance_scale=5,
        seed=2**40 + 5,
        num_inference_steps=6,
    )
    made = image_of(shapes, "a blue star", negative="red", scale=5, seed=2**40 + 5)
    assert np.abs(made - own).max() <= 1


def test_without_guidance_there_is_one_row(tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 1, "width": 64, "height": 32}
    folder = write_bundle(tiny_model, tmp_path / "bundle", **settings)
    plan = json.loads((folder / "plan.json").read_text())
    jsonschema.validate(plan, SCHEMA)
    assert plan["guidance_scale"] is None
    assert (plan["width"], plan["height"]) == (64, 32)
    made = image_of(folder, "a cat", seed=0)
    assert made.shape == (32, 64, 3)
    assert np.abs(made - own_image(tiny_model, "a cat", seed=0, **settings)).max() <= 1


def test_the_command(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    arguments = ["bundle", "shapes", "-o", str(output), "--steps", "4", "--scheduler", "Euler a"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{output}\n"
    plan = json.loads((output / "plan.json").read_text())
    assert (len(plan["steps"]), plan["scheduler"]) == (4, "Euler a")
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == RequestError.exit_code
    assert "exists already" in again.output
    assert CliRunner().invoke(main, [*arguments, "--force", "-q"]).exit_code == 0


def test_what_cannot_be_bundled(tmp_path: Path, tiny_model: Path, checkpoint: Any) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(RequestError, match="'dpm_adaptive' cannot be written as sums"):
        write_bundle("shapes", output, scheduler="dpm_adaptive")
    with pytest.raises(UnsupportedModelError, match=r"is a checkpoint: export it first: sdrt export"):
        write_bundle(checkpoint("sd1"), output, notify=lambda _: None)
    with pytest.raises(RequestError, match="8x8 has only 4 latent values: choose a larger one"):
        write_bundle("shapes", output, width=8, height=8)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    with pytest.raises(RequestError, match="is inside of the model"):
        write_bundle(model, model / "bundle", notify=lambda _: None)
    assert not (model / "bundle").exists()
    with pytest.raises(TypeError, match="clip_skip"):
        write_bundle("shapes", output, clip_skip=1)  # type: ignore[call-arg]
    assert not list(tmp_path.glob("bundle*"))


@pytest.mark.parametrize("location", ["../../victim.txt", "sub/weights", "/etc/hostname"])
def test_weights_outside_of_a_graph_s_folder_are_refused(
    tiny_model: Path, tmp_path: Path, location: str
) -> None:
    """A hostile graph could otherwise name any file to be copied, or to be written over."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "text_encoder" / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    tensor = model.graph.initializer.add(name="more", data_type=onnx.TensorProto.FLOAT, data_location=1)
    tensor.dims.append(1)
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    (tmp_path / "victim.txt").write_text("mine", encoding="utf-8")
    manifest = json.loads((folder / "sdrt.json").read_text())
    content = path.read_bytes()
    record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["text_encoder/model.onnx"] = record
    (folder / "sdrt.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="which is not a file beside it"):
        write_bundle(folder, tmp_path / "out" / "bundle", notify=lambda _: None)
    assert (tmp_path / "victim.txt").read_text() == "mine"
    assert not (tmp_path / "out" / "bundle").exists()


def test_only_files_of_the_folder_are_served(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(shapes, folder)
    (folder / "index.html").write_text("page", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    command = [sys.executable, "-m", "sdrt", "bundle", "--show", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        root = server.stdout.readline().strip()
        try:
            answer = httpx.get(f"{root}sdrt.mjs")
            assert answer.headers["content-type"].startswith("text/javascript")
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            assert httpx.get(root).text == "page"
            assert httpx.get(root, headers={"Host": "evil.example:80"}).status_code == 421
            for path in (
                "link.txt",
                "../secret.txt",
                "..%2fsecret.txt",
                "%2e%2e/secret.txt",
                "unet/",
                "a%00b",
            ):
                assert httpx.get(f"{root}{path}").status_code == 404, path
        finally:
            server.send_signal(signal.SIGINT)


# --- JavaScript -----------------------------------------------------------------------------------------------

NODE = shutil.which("node")
WITHOUT_NODE = pytest.mark.skipif(NODE is None, reason="node is not installed")
SCRIPT = """
import { readFile } from "node:fs/promises";
import { Generator, Tokenizer } from "./sdrt.mjs";
const asked = JSON.parse(await readFile("asked.json", "utf8"));
const plan = JSON.parse(await readFile("plan.json", "utf8"));
const tokenizer = new Tokenizer(JSON.parse(await readFile(plan.tokenizer.file, "utf8")), plan.tokenizer);
const noise = asked.seeds.map(([seed, sizes]) => {
  const generator = new Generator(BigInt(seed));
  return sizes.map((size) => [...generator.randn(size)]);
});
console.log(JSON.stringify({ ids: asked.texts.map((text) => tokenizer.encode(text)), noise }));
"""
TEXTS = [
    *(
        "a red circle",
        "",
        "A  LARGE\nblue STAR, 3 of them!!",
        "it's the cat's; don't",
        "x" * 300,
        "one " * 100,
    ),
    *("naïve café, Straße", "ΣΊΣΥΦΟΣ", "日本語 テスト", "😀 ok", "a-b_c/d\\e", "İstanbul", "e\u0301"),
]
TEXTS += [
    "a <|endoftext|> cat",
    "<|startoftext|>x",
    "a\ufeffb",
    "a\u0085b",
    "a\u00a0b\u2003c",
    "A<|ENDOFTEXT|>",
]
SEEDS: list[tuple[str, list[int]]] = [
    ("0", [16, 1024, 16]),
    ("-1", [20, 33]),
    (str(2**63), [640]),
    ("4294967299", [16]),
]


@WITHOUT_NODE
def test_javascript_has_the_same_tokens_and_noise(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(shapes, folder)
    (folder / "asked.json").write_text(json.dumps({"texts": TEXTS, "seeds": SEEDS}), encoding="utf-8")
    (folder / "asked.mjs").write_text(SCRIPT, encoding="utf-8")
    command = [str(NODE), "asked.mjs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    words = json.loads((folder / "plan.json").read_text())["tokenizer"]
    bpe = tokenizers.Tokenizer.from_file(str(folder / words["file"]))
    for text, ids in zip(TEXTS, found["ids"], strict=True):
        own = bpe.encode(text, add_special_tokens=False).ids[: words["length"] - 2]
        assert ids[: len(own) + 2] == [words["start"], *own, words["end"]], text
        assert len(ids) == words["length"]
    for (seed, sizes), made in zip(SEEDS, found["noise"], strict=True):
        generator = Generator(int(seed))
        for size, values in zip(sizes, made, strict=True):
            np.testing.assert_allclose(values, generator.randn([size]), atol=1e-6)


GENERATE = """
import * as ort from "onnxruntime-node";
import { readFile, writeFile } from "node:fs/promises";
import { Pipeline } from "./bundle/sdrt.mjs";
const open = (name) => ort.InferenceSession.create(`bundle/${name}`, { logSeverityLevel: 3 });
const pipeline = await Pipeline.open(ort, (name) => readFile(`bundle/${name}`, "utf8"), open);
const told = [];
const image = await pipeline.generate("a red circle", { seed: 3, onStep: (done, all) => told.push([done, all]) });
await writeFile("image.bin", image.data);
const cancel = new AbortController();
const onStep = () => cancel.abort();
const stopped = await pipeline.generate("a", { onStep, signal: cancel.signal }).catch((error) => error.name);
const wrong = [];
const calls = [[5, {}], ["a", { seed: 1.5 }], ["a", { guidanceScale: NaN }], ["a", { negativePrompt: null }]];
for (const [prompt, options] of calls) {
  wrong.push(await pipeline.generate(prompt, options).catch((error) => error.message));
}
const long = pipeline.fits("one ".repeat(100));
await pipeline.release();
await pipeline.release();
wrong.push(await pipeline.generate("a").catch((error) => error.message));
console.log(JSON.stringify({ size: [image.height, image.width], told, stopped, wrong, long }));
"""


@pytest.mark.full
@WITHOUT_NODE
def test_node_makes_python_s_image(shapes: Path, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    example = ROOT / "examples" / "node"
    for file in example.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=60000")
    install = ["npm", "install", *quiet]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"onnxruntime-node cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    shutil.copytree(shapes, tmp_path / "bundle")
    (tmp_path / "run.mjs").write_text(GENERATE, encoding="utf-8")
    command = [str(NODE), "run.mjs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["told"] == [[number, 6] for number in range(1, 7)]
    assert found["stopped"] == "AbortError"
    assert found["wrong"] == [
        "prompt is 5: expected a string",
        "seed is 1.5: expected a whole number, or a BigInt",
        "guidanceScale is NaN: expected a number from -10000 to 10000",
        "negativePrompt is null: expected a string",
        "this pipeline was released: open the bundle again",
    ]
    assert found["long"] is False
    pixels = np.frombuffer((tmp_path / "image.bin").read_bytes(), np.uint8).reshape(*found["size"], 4)
    assert (pixels[..., 3] == 255).all()
    own = own_image("shapes", PROMPT, seed=3, num_inference_steps=6)
    assert np.abs(pixels[..., :3].astype(int) - own).max() <= 2
    # The example does the same.
    command = [str(NODE), "generate.mjs", "bundle", PROMPT, "example.png", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("step 6 of 6\n")
    assert np.abs(pixels_of(tmp_path / "example.png") - own).max() <= 2


def pixels_of(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


# --- C++ ------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_cpp_makes_python_s_image(shapes: Path, tmp_path: Path) -> None:
    """The packages on PyPI and npm lack ONNX Runtime's C++ headers, so the test needs a release of it."""
    if (release := os.environ.get("SDRT_TEST_ONNXRUNTIME")) is None:
        pytest.skip("SDRT_TEST_ONNXRUNTIME does not name a release of ONNX Runtime with include/ and lib/")
    example, build = ROOT / "examples" / "cpp", tmp_path / "build"
    for command in (
        ["cmake", "-S", str(example), "-B", str(build), f"-DONNXRUNTIME={release}"],
        ["cmake", "--build", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for number, text in enumerate([*TEXTS, "a <|endoftext|>! cat", PROMPT]):
        path = tmp_path / f"{number}.png"
        arguments = [build / "generate", shapes, text, path, str(2**32 + number)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made = image_of(shapes, text, seed=2**32 + number)
        assert np.abs(pixels_of(path) - made).max() <= 2, text


# --- browsers -------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
SOFTWARE = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader")


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a page. Skips where ONNX Runtime for browsers cannot be downloaded."""
    output = tmp_path_factory.mktemp("page") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        if npm := shutil.which("npm"):
            command = [npm, "config", "get", "registry"]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            patch.setenv("NPM_CONFIG_REGISTRY", found.stdout.strip())
        try:
            return write_bundle("shapes", output, web=True, num_inference_steps=2)
        except ExportError as error:
            if "cannot be downloaded" not in str(error):
                raise
            pytest.skip(str(error))


@pytest.fixture
def address(page_folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sdrt", "bundle", "--show", str(page_folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) in (0, 130)


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE])
        made = browser.new_page()
        made.set_default_timeout(300_000)
        made.problems = []  # type: ignore[attr-defined]
        made.on("pageerror", lambda error: made.problems.append(str(error)))  # type: ignore[attr-defined]
        made.goto(address)
        yield made
        browser.close()


def made_on(page: Any) -> Any:
    """The image that the page makes."""
    page.click("#go")
    done = "/made in|failed/.test(document.getElementById('said').textContent)"
    page.wait_for_function(done)
    assert "made in" in page.text_content("#said")
    assert page.problems == []
    data = page.evaluate("document.getElementById('image').toDataURL('image/png')")
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.full
def test_the_page_makes_python_s_image_with_threads(page: Any) -> None:
    assert page.evaluate("crossOriginIsolated")
    page.fill("#prompt", "a blue star")
    page.fill("#seed", "7")
    own = own_image("shapes", "a blue star", seed=7, num_inference_steps=2)
    assert np.abs(made_on(page) - own).max() <= 2


@pytest.mark.full
def test_the_page_cancels(page: Any) -> None:
    # Both at once, so that the image cannot be done before the second click.
    page.evaluate("for (const id of ['go', 'stop']) document.getElementById(id).click()")
    page.wait_for_function("/cancelled|made in/.test(document.getElementById('said').textContent)")
    assert page.text_content("#said") == "cancelled"
    assert page.is_enabled("#go")


@pytest.mark.full
def test_webgpu_in_the_browser(page: Any) -> None:
    """On a GPU in software, which takes a minute or two."""
    if not page.evaluate("navigator.gpu?.requestAdapter().then((found) => Boolean(found)) ?? false"):
        pytest.skip("this chromium has no WebGPU")
    page.select_option("#backend", "webgpu")
    own = own_image("shapes", PROMPT, seed=0, num_inference_steps=2)
    assert np.abs(made_on(page) - own).max() <= 2


def test_pages_are_told_apart_and_folders_without_one_are_refused(shapes: Path, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["bundle", *arguments])
        assert done.exit_code == RequestError.exit_code
        return done.output

    assert "is not a bundle with a page: write it with --web" in told("--show", str(shapes))
    assert "does not exist: name a bundle" in told("--show", str(tmp_path / "none"))
    assert "is not a folder: name a bundle" in told("--show", str(shapes / "plan.json"))
    assert "expected MODEL and --output DIR, or --show DIR" in told("shapes")
    assert "--show takes no MODEL" in told("shapes", "--show", str(shapes))
    assert "--show takes no --steps" in told("--show", str(shapes), "--steps", "3")
    assert "--port applies to --show" in told("shapes", "-o", str(tmp_path / "b"), "--port", "1")


def test_another_file_of_the_registry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "registry" / "onnxruntime-web" / "-"
    wrong.mkdir(parents=True)
    (wrong / f"onnxruntime-web-{VERSION}.tgz").write_bytes(b"another file")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "registry").as_uri())
    with pytest.raises(ExportError, match=r"is not onnxruntime-web .*: its hash differs"):
        write_bundle("shapes", tmp_path / "bundle", web=True)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="cannot be downloaded"):
        write_bundle("shapes", tmp_path / "bundle", web=True)
    assert not (tmp_path / "bundle").exists()
