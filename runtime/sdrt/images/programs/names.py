"""Other programs' names of samplers and schedules → A1111's."""

from __future__ import annotations

__all__ = [
    "INVOKEAI_SAMPLERS",
    "SAMPLERS",
    "SCHEDULES",
    "comfyui_sampler_label",
    "sampler_label",
    "schedule_label",
]

SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "plms": "PLMS",
    "uni_pc": "UniPC",
    "unipc": "UniPC",
    "lcm": "LCM",
    "tcd": "TCD",
    "restart": "Restart",
    "deis": "DEIS",
    "ipndm": "iPNDM",
}
"""k-diffusion's names, as ComfyUI, Fooocus, SwarmUI and NovelAI write them; and shorter ones of Easy Diffusion."""

SCHEDULES = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    # It places timesteps. A1111's Beta places noise levels.
    "beta": "beta_timesteps",
    "linear_quadratic": "linear_quadratic",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
}
"""ComfyUI's schedules."""

INVOKEAI_SAMPLERS = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a",
    "lms": "LMS",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "unipc": "UniPC",
    "pndm": "PNDM",
    "plms": "PNDM",
    "lcm": "LCM",
    "tcd": "TCD",
    # Names before version 3.
    "k_euler": "Euler",
    "k_euler_a": "Euler a",
    "k_heun": "Heun",
    "k_lms": "LMS",
    "k_dpm_2": "DPM2",
    "k_dpm_2_a": "DPM2 a",
    "k_dpmpp_2": "DPM++ 2M",
    "dpmpp_2": "DPMSolverSinglestepScheduler",
}
"""InvokeAI's schedulers, which are diffusers'. A name that ends in `_k` has Karras' spacing."""


def sampler_label(name: object) -> str:
    """A1111's name of a sampler, or the program's own name if A1111 has none."""
    text = str(name)
    plain = text.removeprefix("k_").removesuffix("_gpu").removesuffix("_bh2")
    return SAMPLERS.get(plain, text)


def comfyui_sampler_label(name: object) -> str:
    """The same for programs that run ComfyUI, whose ddim is Euler on the levels of the schedule."""
    return "Euler" if str(name) == "ddim" else sampler_label(name)


def schedule_label(name: object) -> str:
    """A1111's name of a schedule type, or the program's own name if A1111 has none."""
    return SCHEDULES.get(str(name), str(name))
