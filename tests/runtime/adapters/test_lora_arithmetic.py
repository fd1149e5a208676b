"""Each kind's change equals its definition, for any shapes, ranks, types and alphas."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.lora.reader import open_adapter
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from tests.adapter_files import (
    ATTENTION,
    CONV,
    FIRST,
    NORM,
    SHAPES,
    change_of,
    kohya,
    numbers,
    opened,
    with_bits,
)
from tests.lora_kinds import CONV_KINDS, LINEAR_KINDS, Kind
from tests.safetensors_files import save_file

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]
LAYERS = st.one_of(
    st.tuples(st.just((8, 12)), st.sampled_from(LINEAR_KINDS)),
    st.tuples(st.sampled_from([(8, 8, 3, 3), (4, 16, 1, 1), (6, 4, 3, 1)]), st.sampled_from(CONV_KINDS)),
)


@given(
    layer=LAYERS,
    rank=st.integers(1, 5),
    alpha=st.none() | st.sampled_from([0.0, 0.25, 1.0, 4.0, -2.0]),
    weight=st.sampled_from([1.0, 0.5, 0.0, -1.5, 3]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_a_change_is_its_kinds_definition(
    layer: tuple[Shape, Kind], rank: int, alpha: float | None, weight: float, dtype: Any, seed: int
) -> None:
    shape, kind = layer
    tensors = {
        name: numbers(*of, seed=seed + number).astype(dtype)
        for number, (name, of) in enumerate(kind.shapes(shape, rank).items())
    }
    file = {f"{kohya(CONV)}.{name}": value for name, value in tensors.items()}
    if alpha is not None:
        file[f"{kohya(CONV)}.alpha"] = np.asarray(alpha, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        change = change_of(opened(Path(folder), file, shapes={"unet": {f"{CONV}.weight": shape}}))
        delta = change.delta(numbers(*shape), weight)
    scale = alpha / rank if kind.has_alpha and alpha is not None else 1.0
    made = kind.change({name: value.astype(np.float64) for name, value in tensors.items()})
    expected = weight * scale * made.reshape(shape)
    assert (delta.dtype, delta.shape) == (np.float32, shape)
    # Relative to the largest, because products of random numbers grow with their number.
    np.testing.assert_allclose(delta, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


UP, DOWN = numbers(8, 2, seed=1), numbers(2, 12, seed=2)
PAIR = {f"{kohya()}.lora_up.weight": UP, f"{kohya()}.lora_down.weight": DOWN}


def test_several_alphas_in_a_file_stay_with_their_layers(tmp_path: Path) -> None:
    conv = {
        f"{kohya(CONV)}.lora_up.weight": numbers(6, 3, 1, 1),
        f"{kohya(CONV)}.lora_down.weight": numbers(3, 8, 3, 3),
    }
    alphas = {f"{kohya()}.alpha": np.float32(8), f"{kohya(CONV)}.alpha": np.float32(1)}
    whole = opened(tmp_path, {**PAIR, **conv}, name="a.safetensors").changes["unet"]
    scaled = opened(
        tmp_path,
        {**PAIR, **conv, **{key: np.asarray(one) for key, one in alphas.items()}},
        name="b.safetensors",
    ).changes["unet"]
    for module, scale in ((ATTENTION, 4), (CONV, 1 / 3)):
        name = f"{module}.weight"
        base = np.zeros(SHAPES["unet"][name], np.float32)
        np.testing.assert_allclose(scaled[name].delta(base, 1), scale * whole[name].delta(base, 1), rtol=1e-6)


BFLOAT16 = {1.0: 0x3F80, -0.5: 0xBF00, 0.0078125: 0x3C00}
E4M3 = {1.0: 0x38, -0.5: 0xB0, 448.0: 0x7E, 2.0**-9: 0x01}
E5M2 = {1.0: 0x3C, -0.5: 0xB8, 57344.0: 0x7B}


@pytest.mark.parametrize(
    ("dtype", "bits", "width"), [("BF16", BFLOAT16, "<u2"), ("F8_E4M3", E4M3, "u1"), ("F8_E5M2", E5M2, "u1")]
)
def test_number_types_that_numpy_lacks(
    dtype: str, bits: dict[float, int], width: str, tmp_path: Path
) -> None:
    values = np.resize(list(bits), (8, 12)).astype(np.float32)
    stored = np.vectorize(bits.get)(values).astype(width)
    path = with_bits(tmp_path / "a.safetensors", {f"{kohya()}.diff": (dtype, stored)})
    change = change_of(open_adapter(path, family=STABLE_DIFFUSION, shapes=SHAPES))
    np.testing.assert_array_equal(change.delta(np.zeros((8, 12), np.float32), 1.0), values)


def test_a_linear_change_fits_a_1x1_convolution_and_back(tmp_path: Path) -> None:
    for shape in ((8, 12), (8, 12, 1, 1)):
        for kernel in ((), (1, 1)):
            file = {
                f"{kohya()}.lora_up.weight": UP.reshape(8, 2, *kernel),
                f"{kohya()}.lora_down.weight": DOWN.reshape(2, 12, *kernel),
            }
            change = change_of(opened(tmp_path, file, shapes={"unet": {f"{ATTENTION}.weight": shape}}))
            made = change.delta(np.zeros(shape, np.float32), 1.0)
            np.testing.assert_allclose(made, (UP @ DOWN).reshape(shape), rtol=1e-6)


@pytest.mark.parametrize(
    "tensors",
    [
        {"lora_up.weight": numbers(8, 2, 1, 1), "lora_down.weight": numbers(2, 4, 3, 3)},
        {"diff": numbers(8, 4, 3, 3)},
        {"hada_w1_a": UP, "hada_w1_b": numbers(2, 36), "hada_w2_a": UP, "hada_w2_b": numbers(2, 36)},
    ],
)
def test_the_first_convolution_of_a_model_for_inpainting_changes_in_its_latents(
    tensors: dict[str, Array], tmp_path: Path
) -> None:
    file = {f"{kohya(FIRST)}.{name}": value for name, value in tensors.items()}
    narrow = change_of(opened(tmp_path, file)).delta(np.zeros((8, 4, 3, 3), np.float32), 0.7)
    shape = (8, 9, 3, 3)
    change = change_of(opened(tmp_path, file, shapes={"unet": {f"{FIRST}.weight": shape}}))
    made = change.delta(np.ones(shape, np.float32), 0.7)
    np.testing.assert_array_equal(made[:, :4], narrow)
    assert not made[:, 4:].any()
    assert not change.delta(np.ones(shape, np.float32), 0.0).any()


def test_biases_and_norms(tmp_path: Path) -> None:
    diff, w, b = numbers(6), numbers(8), numbers(8, seed=3)
    file = {f"{kohya(CONV)}.diff_b": diff, f"{kohya(NORM)}.w_norm": w, f"{kohya(NORM)}.b_norm": b}
    changes = opened(tmp_path, file).changes["unet"]
    expected = {f"{CONV}.bias": diff, f"{NORM}.weight": w, f"{NORM}.bias": b}
    assert changes.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(changes[name].delta(np.ones(value.shape, np.float32), 0.5), value / 2)


def test_the_magnitude_of_peft_is_of_rows_even_where_a_convolution_is_square(tmp_path: Path) -> None:
    """PEFT writes (1, out, 1, 1), which in LyCORIS's key means columns."""
    shape = (8, 8, 3, 3)
    base, diff, m = numbers(*shape, seed=4), numbers(*shape, seed=5), np.abs(numbers(1, 8, 1, 1)) + 1
    v = base + diff
    for key, axes in (("lora_magnitude_vector.weight", (1, 2, 3)), ("dora_scale", (0, 2, 3))):
        file = {f"unet.{CONV}.diff": diff, f"unet.{CONV}.{key}": m}
        change = change_of(opened(tmp_path, file, shapes={"unet": {f"{CONV}.weight": shape}}))
        size = np.sqrt(np.square(v.astype(float)).sum(axes, keepdims=True))
        expected = v * m.reshape(size.shape) / size
        np.testing.assert_allclose(base + change.delta(base, 1.0), expected, rtol=0, atol=1e-5)


def test_a_row_of_zeros_stays_one_in_dora(tmp_path: Path) -> None:
    file = {
        f"{kohya()}.diff": np.zeros((8, 12), np.float32),
        f"{kohya()}.dora_scale": np.ones((8, 1), np.float32),
    }
    base = numbers(8, 12)
    base[3] = 0
    made = base + change_of(opened(tmp_path, file)).delta(base, 1.0)
    assert not made[3].any()
    assert np.isfinite(made).all()


def test_two_adapters_add_up(tmp_path: Path) -> None:
    base = numbers(8, 12, seed=9)
    first = change_of(opened(tmp_path, PAIR, name="1.safetensors"))
    second = change_of(opened(tmp_path, {f"{kohya()}.diff": numbers(8, 12)}, name="2.safetensors"))
    made = base + first.delta(base, 0.5) + second.delta(base, 2.0)
    np.testing.assert_allclose(made, base + 0.5 * (UP @ DOWN) + 2 * numbers(8, 12), rtol=0, atol=1e-5)


def test_the_scale_of_a_file_replaces_alpha_over_rank(tmp_path: Path) -> None:
    file = {
        **PAIR,
        f"{kohya()}.alpha": np.float32(9).reshape(()),
        f"{kohya()}.scale": np.float32(0.25).reshape(()),
    }
    made = change_of(opened(tmp_path, file)).delta(np.zeros((8, 12), np.float32), 1.0)
    np.testing.assert_allclose(made, 0.25 * (UP @ DOWN), rtol=0, atol=1e-6)


def test_an_embedding_of_peft(tmp_path: Path) -> None:
    name = "text_model.embeddings.token_embedding"
    a, b = numbers(2, 20), numbers(12, 2)
    file = {f"text_encoder.{name}.lora_embedding_A": a, f"text_encoder.{name}.lora_embedding_B": b}
    change = change_of(opened(tmp_path, file, shapes={"text_encoder": {f"{name}.weight": (20, 12)}}))
    np.testing.assert_allclose(
        change.delta(np.zeros((20, 12), np.float32), 1.0), (b @ a).T, rtol=0, atol=1e-6
    )


def test_the_files_tensors_stay_in_the_file(tmp_path: Path) -> None:
    """Reading a file of 64 MB takes no memory for its tensors."""
    rows, columns = 4096, 4096
    file = {f"{kohya()}.diff": np.ones((rows, columns), np.float32)}
    path = tmp_path / "large.safetensors"
    save_file(file, path)
    del file
    tracemalloc.start()
    adapter = open_adapter(
        path, family=STABLE_DIFFUSION, shapes={"unet": {f"{ATTENTION}.weight": (rows, columns)}}
    )
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adapter.changes
    assert most < 2 << 20


@pytest.mark.parametrize("kind", LINEAR_KINDS)
@pytest.mark.parametrize("is_dora", [False, True])
def test_a_change_takes_the_memory_of_few_layers(kind: Kind, is_dora: bool, tmp_path: Path) -> None:
    shape, rank = (1024, 1024), 8
    file = {f"{kohya()}.{name}": numbers(*of) for name, of in kind.shapes(shape, rank).items()}
    if is_dora:
        file[f"{kohya()}.dora_scale"] = np.ones((1024, 1), np.float32)
    change = change_of(opened(tmp_path, file, shapes={"unet": {f"{ATTENTION}.weight": shape}}))
    base = numbers(*shape)
    tracemalloc.start()
    change.delta(base, 1.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * base.nbytes
