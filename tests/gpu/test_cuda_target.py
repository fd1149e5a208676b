"""Models of target cuda on an NVIDIA GPU: each graph is the model, stays on the GPU, and images are the CPU's.

With `SDRT_GPU_REHEARSAL` set NumPy takes the GPU's place (`stand_in.py`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from sdrt import OutOfMemoryError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx.buffers import Bound
from sdrt.onnx.overflow import failed
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from tests.comparison import relative_error
from tests.export.built import examples, reference
from tests.gpu.on_gpu import ON_GPU, Export, Exports, fail

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not ON_GPU, reason="no CUDA device works")]

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
VARIANTS = ("sd1", "wide")
# What a run may compute on the host: shapes.
OF_SHAPES = frozenset(
    {"Shape", "Size", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Reshape", "Identity"}
    | {"Add", "Sub", "Mul", "Div", "Mod", "Floor", "Ceil", "Min", "Max", "Range", "ConstantOfShape"}
    | {"Constant", "Equal", "Less", "Greater", "Not", "And", "Or", "Where", "Expand", "Split"}
)
CALL: dict[str, Any] = {
    "prompt": "a (lighthouse:1.2) on a cliff",
    "num_inference_steps": 3,
    "width": 64,
    "height": 72,
    "seed": 4,
    "output_type": "np",
}
# 11 bits in every result of 3 steps and of the VAE, the largest of all pixels: 0.01 was measured by NumPy.
HALF = 0.02
# The same kernels, or the same arithmetic by others.
LEVELS = 2 / 255


class Graph(Protocol):
    def __call__(self, feeds: Mapping[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]: ...


def on_cuda(name: str, path: Path, **options: Any) -> Component:
    return Component(name, path, SessionConfig(provider="cuda", provider_options=options), Notices(fail))


def exact(path: Path) -> dict[str, Any]:
    """Options for graphs in float32; those in float16 run as they are used, and need TF32 for the Tensor Cores."""
    return {"use_tf32": False} if path.stem.endswith("_fp32") else {}


def opened(name: str, path: Path) -> tuple[Graph, dict[str, np.dtype], list[str]]:
    """What runs a graph, the dtypes of its inputs, and its outputs; on the GPU float32 without TF32."""
    component = on_cuda(name, path, **exact(path))
    specs = component.inputs | component.optional
    return (
        lambda feeds, outputs: [component.run(feeds, output) for output in outputs],
        {key: spec.dtype for key, spec in specs.items()},
        list(component.outputs),
    )


@pytest.mark.parametrize("graph", ["model.onnx", "model_fp32.onnx"])
@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_graph_is_the_model(
    exports: Exports, torch_module: Callable[..., Any], variant: str, name: str, graph: str
) -> None:
    """Rounded results are within 1e-2 of torch's largest, rounded weights alone within 5e-3; at two sizes, one odd."""
    export = exports(variant)
    run, dtypes, names = opened(name, export.folder / name / graph)
    component, module = torch_module(export.checkpoint, name)
    errors = {}
    for size in (1, 2):
        inputs = examples(component, module, size)
        feeds = {key: value.astype(dtypes[key]) for key, value in inputs.items() if key in dtypes}
        wanted = reference(component, module, inputs)
        known = [key for key in wanted if key in names]
        for key, got in zip(known, run(feeds, known), strict=True):
            errors[size, key] = relative_error(got, wanted[key])
    assert errors
    limit = 1e-2 if graph == "model.onnx" else 5e-3
    assert {key: error for key, error in errors.items() if not error < limit} == {}


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_only_shapes_are_computed_on_the_host(exports: Exports, variant: str, name: str) -> None:
    for path in sorted((exports(variant).folder / name).glob("*.onnx")):
        placement = on_cuda(name, path).placement()
        assert placement is not None, "onnxruntime before 1.24 does not tell"
        assert placement["CUDAExecutionProvider"]
        elsewhere = {
            operator
            for provider, counts in placement.items()
            if provider != "CUDAExecutionProvider"
            for operator in counts
        }
        assert elsewhere <= OF_SHAPES, path.name


@pytest.mark.parametrize("name", ["vae_decoder", "vae_encoder"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stages_are_the_vae(
    exports: Exports, torch_module: Callable[..., Any], variant: str, name: str
) -> None:
    from sdrt.vae.stages import StagedVae

    export = exports(variant)
    component, module = torch_module(export.checkpoint, name)
    inputs = examples(component, module, 2)
    (expected,) = reference(component, module, inputs).values()
    (given,) = inputs.values()
    stages = sorted((export.folder / name).glob("stages*.onnx"))
    assert stages
    for path in stages:
        session = on_cuda(f"{name} in stages", path, **exact(path))
        widest = max(int(spec.shape[1]) for spec in session.outputs.values())
        # Several tiles of so small an image.
        found = StagedVae(session, tile=256 * widest)(given[0])
        assert relative_error(found, expected[0]) < 1e-2, path.name


def test_an_export_is_checked_on_the_gpu(exports: Exports, tmp_path: Path) -> None:
    from sdrt_export import export_model

    manifest = export_model(exports("sd1").checkpoint, tmp_path / "model", target="cuda", verify=True)
    for name, entry in manifest.components.items():
        assert {row["evaluator"] for row in entry["parity"]} == {"cuda"}, name


def pipeline(export: Export, **options: Any) -> StableDiffusionPipeline:
    given = {"provider": "cuda", **options}
    return StableDiffusionPipeline.from_pretrained(export.folder, notify=fail, **given)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_is_the_cpu_s(exports: Exports, variant: str) -> None:
    on_cpu = exports(variant, "cpu").folder
    expected = StableDiffusionPipeline.from_pretrained(on_cpu, provider="cpu", notify=fail)(**CALL).images
    assert np.ptp(expected) > 0.2
    found = pipeline(exports(variant))
    np.testing.assert_allclose(found(**CALL).images, expected, atol=HALF)
    assert found.float32_retries == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_recordings_draw_the_same(exports: Exports, variant: str) -> None:
    """Other prompts, seeds and sizes, and a size again: a recording that kept an input would draw the first image."""
    export = exports(variant)
    plain = pipeline(export)
    recorded = pipeline(export, provider_options={"enable_cuda_graph": True})
    calls = [
        CALL,
        CALL | {"prompt": "a cat", "seed": 5},
        CALL | {"width": 96},
        CALL | {"guidance_scale": 1.0},
        CALL,
    ]
    expected = [plain(**call).images for call in calls]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    for call, image in zip(calls, expected, strict=True):
        np.testing.assert_allclose(recorded(**call).images, image, atol=LEVELS)
    (unet,) = (graph for graph in recorded.graphs if graph.name == "unet")
    assert unet.records


def test_what_a_controlnet_gives_stays_on_the_gpu(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.control import write_controlnet
    from sdrt_export import export_model

    checkpoint = exports("sd1").checkpoint
    net = write_controlnet(checkpoint / "unet", tmp_path / "net")
    call = CALL | {"control_image": np.full((72, 64, 3), 200, np.uint8)}
    images, copied = {}, Counter[str]()
    copy = Bound.set

    def spied(self: Bound, name: str, array: np.ndarray) -> None:
        copied[name] += 1
        copy(self, name, array)

    monkeypatch.setattr(Bound, "set", spied)
    for target in ("cpu", "cuda"):
        folder = tmp_path / target
        export_model(checkpoint, folder, target=target, controlnet=[net])
        with pipeline(Export(checkpoint=checkpoint, folder=folder), provider=target) as made:
            copied.clear()
            images[target] = made(**call).images
            # The first step is checked. The middle's is small, and tells whether a later one overflowed.
            residuals = {name: count for name, count in copied.items() if "residual" in name}
            assert residuals.pop("mid_block_additional_residual") > 1
            assert set(residuals.values()) == {1}
            # Those of the first run are gone from the buffers.
            off = made(**call, controlnet_conditioning_scale=0).images
            np.testing.assert_array_equal(off, made(**CALL).images)
    assert np.abs(images["cuda"] - off).max() > 0.02
    np.testing.assert_allclose(images["cuda"], images["cpu"], atol=HALF)


def test_a_t2i_adapter(exports: Exports, tmp_path: Path) -> None:
    from sdrt_export import export_model
    from tests.parity.t2i_adapters import write_adapter

    checkpoint, net = exports("sd1").checkpoint, write_adapter(tmp_path / "net", "sd1")
    call, images = CALL | {"control_image": np.full((72, 64, 3), 200, np.uint8)}, []
    for target in ("cpu", "cuda"):
        folder = tmp_path / target
        export_model(checkpoint, folder, target=target, controlnet=[net])
        with pipeline(Export(checkpoint=checkpoint, folder=folder), provider=target) as made:
            images.append(made(**call).images)
            off = made(**CALL).images
    assert np.abs(images[1] - off).max() > 0.02
    np.testing.assert_allclose(images[1], images[0], atol=HALF)


@pytest.fixture
def overflowing(exports: Exports, tmp_path: Path) -> Path:
    """The tiny model with a convolution of the decoder so large that its sums leave float16; a norm follows it."""
    import onnx_ir as ir

    folder = tmp_path / "model"
    shutil.copytree(exports("sd1").folder, folder)
    (folder / "sdrt.json").chmod(0o644)
    weights = ir.load(folder / "vae_decoder" / "model.onnx").graph.initializers
    tensor: Any = weights["decoder.mid_block.resnets.0.conv1.weight"].const_value
    count = int(np.prod(tensor.shape))
    mapped = np.memmap(
        folder / "vae_decoder" / "model.onnx_data", np.float16, "r+", offset=tensor.offset, shape=(count,)
    )
    mapped[:] = mapped.astype(np.float32) * (60000 / float(np.abs(mapped).max()))
    mapped.flush()
    return folder


def test_the_graph_in_float32_does_not_overflow(overflowing: Path) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)
    found = {}
    for graph in ("model.onnx", "model_fp32.onnx"):
        run, dtypes, _ = opened("vae_decoder", overflowing / "vae_decoder" / graph)
        found[graph] = run({"latent_sample": latents.astype(dtypes["latent_sample"])}, ["sample"])[0]
    assert failed(found["model.onnx"])
    assert not failed(found["model_fp32.onnx"])


def test_a_run_that_overflows_is_made_again(overflowing: Path, exports: Exports) -> None:
    said: list[str] = []
    rescued = StableDiffusionPipeline.from_pretrained(
        overflowing, provider="cuda", verify=False, notify=said.append
    )
    image = rescued(**CALL).images
    assert np.isfinite(image).all()
    assert np.ptp(image) > 0.01
    assert rescued.float32_retries == {"vae_decoder": 1}
    assert [line for line in said if line.startswith("vae_decoder: float16 overflowed")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_low_vram_draws_the_same(exports: Exports, variant: str) -> None:
    export = exports(variant)
    np.testing.assert_allclose(
        pipeline(export, low_vram=True)(**CALL).images, pipeline(export)(**CALL).images, atol=HALF
    )


def test_too_little_memory_is_named(exports: Exports) -> None:
    """The wide U-Net's weights alone are larger; its arena tells of it in words of its own."""
    small = StableDiffusionPipeline.from_pretrained(
        exports("wide").folder,
        provider="cuda",
        provider_options={"gpu_mem_limit": "8MB"},
        notify=lambda message: None,
    )
    with pytest.raises(OutOfMemoryError, match=r"ran out of memory on cuda.*use a smaller model"):
        small(**CALL)
