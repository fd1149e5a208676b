"""Graphs of ComfyUI: how they sample, with one sampler or several, and from what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.images.comfyui_graphs import Graph, assert_same, changed, graph, node, read


def test_an_image_as_the_start() -> None:
    found = read(
        graph(
            **{
                "3": changed("3", denoise=0.6, latent_image=["20", 0]),
                "20": node("VAEEncode", pixels=["21", 0], vae=["4", 2]),
                "21": node("LoadImage", image="in.png", upload="image"),
                "5": None,
            }
        )
    )
    assert_same(
        found,
        Size="64x48",
        Denoising_strength="0.6",
        Init_image="in.png",
        Steps_that_run="20 of 33",
    )


def test_one_image_of_a_batch_and_steps_left_out_are_said() -> None:
    assert_same(read(graph(**{"5": changed("5", batch_size=4)})), Image_of_a_batch="one of 4")
    found = read(graph(**{"3": changed("3", denoise=0.5)}))
    assert_same(found, Denoising_strength_of_empty_latents="0.5")
    advanced = node(
        "KSamplerAdvanced",
        **{name: value for name, value in graph()["3"]["inputs"].items() if name not in ("seed", "denoise")},
        noise_seed=9,
        add_noise="enable",
        start_at_step=0,
        end_at_step=10,
        return_with_leftover_noise="enable",
    )
    assert_same(read(graph(**{"3": advanced})), Seed="9", Steps_that_run="0 to 10")
    advanced["inputs"] |= {"end_at_step": 10_000}
    assert_same(read(graph(**{"3": advanced})), Seed="9")


def test_custom_samplers_are_put_together_from_their_parts() -> None:
    parts = dict(PARTS)
    assert_same(read(graph(**parts)), Seed="11")
    parts["22"] = node("SamplerEulerAncestral", eta=1, s_noise=1)
    parts["23"] = node("KarrasScheduler", steps=20, sigma_max=14.6, sigma_min=0.03, rho=7)
    assert_same(read(graph(**parts)), Seed="11", Sampler="Euler a", Fresh_noise="of the GPU")
    custom = node(
        "SamplerCustom",
        model=["4", 0],
        add_noise=True,
        noise_seed=11,
        cfg=8,
        positive=["6", 0],
        negative=["7", 0],
        sampler=["22", 0],
        sigmas=["23", 0],
        latent_image=["5", 0],
    )
    parts |= {"3": custom, "22": node("KSamplerSelect", sampler_name="dpmpp_2m")}
    assert_same(read(graph(**parts)), Seed="11")


PARTS: Graph = {
    "3": node(
        "SamplerCustomAdvanced",
        noise=["20", 0],
        guider=["21", 0],
        sampler=["22", 0],
        sigmas=["23", 0],
        latent_image=["5", 0],
    ),
    "20": node("RandomNoise", noise_seed=11),
    "21": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=8),
    "22": node("KSamplerSelect", sampler_name="dpmpp_2m"),
    "23": node("BasicScheduler", model=["4", 0], scheduler="karras", steps=20, denoise=1),
}


def dual_guider() -> dict[str, Any]:
    return node(
        "DualCFGGuider", model=["4", 0], cond1=["6", 0], cond2=["6", 0], negative=["7", 0], cfg_conds=8
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"20": node("DisableNoise")}, {"First noise": "none", "Seed": None}),
        ({"21": node("BasicGuider", model=["4", 0], conditioning=["6", 0])}, {"CFG scale": "1"}),
        ({"21": dual_guider()}, {"Guider": "DualCFGGuider 21", "CFG scale": None}),
        (
            {"22": node("SamplerLCMUpscale", scale_ratio=2)},
            {"Sampler": "SamplerLCMUpscale", "Sampler options": "scale_ratio 2"},
        ),
        (
            {"22": node("SamplerDPMPP_SDE", eta=0.5, s_noise=1, r=0.5)},
            {"Sampler": "DPM++ SDE", "Sampler options": "eta 0.5"},
        ),
        (
            {"22": node("Reroute", **{"": ["24", 0]}), "24": node("SamplerLMS", order=4)},
            {"Sampler": "LMS", "Sampler options": None},
        ),
        (
            {"23": node("KarrasScheduler", steps=20, sigma_max=14.614642, sigma_min=0.0291675, rho=5)},
            {"Noise levels": "KarrasScheduler 23", "Schedule type": "Karras"},
        ),
        ({"23": node("ManualSigmas", sigmas="7, 1, 0")}, {"Noise levels": "ManualSigmas 23", "Steps": None}),
        (
            {"23": node("SplitSigmas", sigmas=["24", 0], step=9), "24": PARTS["23"]},
            {"Noise levels": "SplitSigmas 23", "Steps": "20"},
        ),
    ],
    ids=lambda one: str(next(iter(one.values()))["class_type"]) if "class_type" in str(one) else "",
)
def test_parts_of_a_custom_sampler_that_change_the_image_are_said(
    part: Graph, said: dict[str, str | None]
) -> None:
    found = read(graph(**PARTS | part))
    assert found.prompt == "a red circle"
    assert {name: found.settings.get(name) for name in said} == said


def test_a_second_pass_without_noise_of_its_own_is_said() -> None:
    found = read(
        graph(**PARTS | {"3": node("SamplerCustom", **{**graph()["3"]["inputs"], "add_noise": False})})
    )
    assert found.settings["First noise"] == "none"


def test_what_happens_behind_the_sampler_is_said() -> None:
    loader = node("VAELoader", vae_name="b.safetensors")
    assert_same(read(graph(**{"8": changed("8", vae=["20", 0]), "20": loader})), VAE="b.safetensors")
    saved = changed("9", images=["20", 0])
    larger = node("ImageUpscaleWithModel", upscale_model=["21", 0], image=["8", 0])
    model = node("UpscaleModelLoader", model_name="4x.pth")
    found = read(graph(**{"9": saved, "20": larger, "21": model}))
    assert_same(found, Behind_the_sampler="ImageUpscaleWithModel 20")


def test_a_mask_is_said() -> None:
    masked = node("VAEEncodeForInpaint", pixels=["20", 0], mask=["20", 1], vae=["4", 2], grow_mask_by=6)
    found = read(graph(**{"5": masked, "20": node("LoadImage", image="in.png")}))
    assert_same(
        found,
        Size="64x48",
        Denoising_strength="1",
        Init_image="in.png",
        Latents="VAEEncodeForInpaint 5",
    )


def test_of_several_samplers_the_one_that_begins_is_read_and_the_others_are_said() -> None:
    second = changed("3", seed=99, steps=14, denoise=0.5, latent_image=["21", 0])
    nodes = graph(
        **{
            "20": second,
            "21": node(
                "LatentUpscale", samples=["3", 0], upscale_method="nearest-exact", width=1024, height=1536
            ),
            "8": changed("8", samples=["20", 0]),
        }
    )
    found = read(nodes)
    assert_same(
        found,
        Behind_the_sampler="LatentUpscale 21",
        Sampler_node="KSampler 3",
        Other_samplers="KSampler 20 (steps 14, denoise 0.5)",
    )
    # The same in any order, and beside a sampler whose image is not saved.
    nodes = dict(reversed(list(nodes.items()))) | {"90": changed("3", seed=1)}
    assert read(nodes).settings == found.settings


@pytest.mark.parametrize(
    ("sampler", "scheduler", "labels"),
    [
        ("euler", "normal", ("Euler", "Normal")),
        ("euler_ancestral", "sgm_uniform", ("Euler a", "SGM Uniform")),
        ("dpmpp_sde_gpu", "exponential", ("DPM++ SDE", "Exponential")),
        ("uni_pc_bh2", "simple", ("UniPC", "Simple")),
        ("ddim", "ddim_uniform", ("Euler", "DDIM")),
        ("dpmpp_2s_ancestral", "beta", ("DPM++ 2S a", "beta_timesteps")),
        ("res_multistep", "linear_quadratic", ("res_multistep", "linear_quadratic")),
    ],
)
def test_names(sampler: str, scheduler: str, labels: tuple[str, str]) -> None:
    settings = read(graph(**{"3": changed("3", sampler_name=sampler, scheduler=scheduler)})).settings
    assert (settings["Sampler"], settings["Schedule type"]) == labels
