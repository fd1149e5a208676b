"""Arguments of diffusers' and optimum's functions, and those that people know from A1111."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdrt.foreign.word import Word, same

__all__ = [
    "CALLING",
    "IP_ADAPTER",
    "LOADING",
    "MOVING",
    "PIPELINE_ARGUMENTS",
    "REQUESTING",
    "SINGLE_FILE",
    "TEXTUAL_INVERSION",
]

_OWN_CHECKER = "remove it; sdrt runs the safety checker that the model has"
_PRECISION = "remove it, and export the checkpoint in the precision that you need: sdrt export --dtype fp16"
_WHOLE = "remove it; a model folder is loaded whole"
_GRAPH = "export the checkpoint that has it: sdrt export CHECKPOINT -o model/"
_MEMORY = "remove it; low_vram=True takes less memory"
_PLACE = 'say where to run with provider=, such as provider="cuda"'
_TASK = "remove it; one pipeline does every task"
_ASSIGN = "assign it after loading: pipeline.scheduler = …"
_ATTENTION = "write lora_scale= for a LoRA, and ip_adapter_masks= for masks"
_OTHER_MODELS = "remove it; it is for models that sdrt does not run"

LOADING = (
    *same(
        "pretrained_model_name_or_path model_id",
        "the model",
        "give the model as the first argument, or as model=",
    ),
    Word("revision", "a version on the hub", "the same", works=True),
    Word("token", "an access token of the hub", "the same", works=True),
    Word("use_auth_token", "an access token of the hub", "write token=", (None,)),
    Word("cache_dir", "where downloads are kept", "the same", works=True),
    Word("provider", "the execution provider", 'the same, or short: "cpu", "cuda"', works=True),
    Word("provider_options", "options of the provider", "the same", works=True),
    Word(
        "providers",
        "several execution providers",
        "give one provider=; allow_fallback=True adds the CPU",
        (None,),
    ),
    *same("torch_dtype dtype", "the precision", _PRECISION, (None, "auto")),
    Word("variant", "which copy of the weights", _PRECISION, (None,)),
    Word("safety_checker", "a filter for images", "the same: None turns the model's own off", works=True),
    Word("requires_safety_checker", "whether there must be a filter", _OWN_CHECKER, (None, False)),
    Word("feature_extractor", "what the filter of images reads", _OWN_CHECKER, (None,)),
    Word("image_encoder", "CLIP's vision encoder for image prompts", "give its folder or file", works=True),
    Word("device_map", "which device holds what", _PLACE, (None,)),
    Word("device", "where to run", _PLACE, (None,)),
    Word(
        "local_files_only",
        "no download",
        "set the environment variable HF_HUB_OFFLINE=1; folders and embedded models need no network",
        (None, False),
    ),
    Word(
        "use_safetensors",
        "which file format to read",
        "remove it; checkpoints are read from .safetensors files only",
        (None, True),
    ),
    Word("low_cpu_mem_usage", "less memory while loading", _MEMORY, (None, False)),
    Word("max_memory", "a limit for each device", _MEMORY, (None,)),
    Word("offload_folder", "where parts of a model wait", _MEMORY, (None,)),
    Word("offload_state_dict", "weights that wait on disk", _MEMORY, (None, False)),
    Word("disable_mmap", "how files are read", "remove it", (None, False)),
    Word("scheduler", "another scheduler", _ASSIGN, (None,)),
    Word("unet", "another U-Net", _GRAPH),
    Word("vae", "another VAE", "give its .safetensors file, its folder or its hub id", works=True),
    Word("text_encoder", "another text encoder", _GRAPH),
    Word("tokenizer", "another tokenizer", _GRAPH),
    Word(
        "controlnet",
        "guidance by a second image",
        "give its .safetensors file, its folder or its hub id, or a list of them",
        works=True,
    ),
    Word("adapter", "a T2I-Adapter", "write controlnet=, which takes them too"),
    Word("subfolder", "a folder inside the model's", "give the path of that folder", (None, "")),
    Word("custom_pipeline", "a pipeline from the hub", _TASK, (None,)),
    Word("custom_revision", "a version of that pipeline", _TASK, (None,)),
    Word(
        "trust_remote_code", "code from the hub", "remove it; sdrt never runs a model's code", (None, False)
    ),
    Word(
        "force_download",
        "download again",
        "delete the model from the hub's cache: hf cache rm",
        (None, False),
    ),
    Word(
        "resume_download", "continue a download", "remove it; downloads always continue", (None, True, False)
    ),
    Word("proxies", "proxy servers", "set the environment variables HTTP_PROXY and HTTPS_PROXY", (None,)),
    Word("mirror", "another hub", "set the environment variable HF_ENDPOINT", (None,)),
    Word("output_loading_info", "a report of loading", "remove it", (None, False)),
    Word(
        "quantization_config", "weights in fewer bits", "export in 8 bits: sdrt export --dtype int8", (None,)
    ),
    Word("from_flax", "weights of JAX", _GRAPH, (None, False)),
    Word("use_onnx", "download ONNX graphs", "remove it; sdrt always uses them", (None, True)),
    Word("dduf_file", "a model in one file", _GRAPH, (None,)),
    Word("use_flashpack", "another format of weights", _GRAPH, (None, False)),
    Word("load_connected_pipeline", "more pipelines", _TASK, (None, False)),
    Word("export", "export while loading", "remove it; sdrt runs checkpoints directly", (None,)),
    *same(
        "sess_options session_options",
        "settings of ONNX Runtime",
        "give threads=; sdrt chooses the others",
        (None,),
    ),
    Word("use_io_binding", "tensors that stay on the device", "remove it; sdrt binds them itself", (None,)),
    Word("add_watermarker", "an invisible mark", "remove it; sdrt adds none", (None, False)),
)
"""Arguments of `from_pretrained`."""

CONSTRUCTING = (
    Word("*", "a part of a pipeline", "make pipelines with StableDiffusionPipeline.from_pretrained"),
)
"""Arguments of the class itself."""

_OWN_WORDS = (
    *same("steps num_steps sampling_steps", "the number of steps", "write num_inference_steps="),
    *same("cfg cfg_scale", "the guidance", "write guidance_scale="),
    *same("sampler sampler_name sampler_index", "the scheduler", "write scheduler="),
    Word("schedule_type", "the spacing", "write spacing="),
    Word("denoising_strength", "how much to change the image", "write strength="),
    Word("init_image", "the image to start from", "write image="),
    Word("init_images", "the images to start from", "write image="),
    Word("mask", "the mask", "write mask_image="),
    Word("batch_size", "images at once", "write num_images_per_prompt="),
    Word("num_images", "images of a prompt", "write num_images_per_prompt="),
    Word("n_iter", "images one after another", "write num_images_per_prompt=, or call again"),
    Word("enable_hr", "a second pass", "write hires_scale="),
    Word("hr_scale", "the size of a second pass", "write hires_scale="),
    Word("hr_second_pass_steps", "the steps of a second pass", "write hires_steps="),
    Word("hr_upscaler", "what a second pass enlarges", "write hires_upscaler="),
    Word("refiner_checkpoint", "a second model", "write refiner="),
    Word("refiner_switch_at", "when the second model takes over", "write refiner_switch="),
)

_OTHERS = (
    Word("cross_attention_kwargs", "options of attention, such as a LoRA's scale", _ATTENTION, (None, {})),
    Word("use_karras_sigmas", "the spacing", 'write spacing="karras"', (None, False)),
    Word(
        "adapter_conditioning_scale",
        "how much a T2I-Adapter guides",
        "write controlnet_conditioning_scale=; its image is control_image=",
    ),
    Word(
        "adapter_conditioning_factor",
        "the share of the steps in which a T2I-Adapter guides",
        "write control_guidance_end=",
    ),
    Word("ip_adapter_image", "an image as a prompt", "the same", works=True),
    Word("ip_adapter_image_embeds", "embeddings of an image prompt", "the same", works=True),
    Word("masked_image_latents", "the masked image as latents", "pass image= and mask_image=", (None,)),
    Word("max_embeddings_multiples", "longer prompts", "remove it; prompts may have any length", (None,)),
    Word("device", "where to run", 'choose it when loading, or with pipeline.to("cuda")', (None,)),
    Word("max_sequence_length", "the length of prompts", _OTHER_MODELS, (None,)),
)

CALLING = (
    Word(
        "prompt, height, width, num_inference_steps",
        "the first four",
        "the same, also by position",
        works=True,
    ),
    Word("guidance_scale, negative_prompt, num_images_per_prompt, eta", "", "the same", works=True),
    Word("timesteps, sigmas, clip_skip, guidance_rescale", "", "the same", works=True),
    Word("latents, prompt_embeds, negative_prompt_embeds", "arrays", "the same, as NumPy arrays", works=True),
    Word("image, mask_image, strength, padding_mask_crop", "", "the same", works=True),
    Word("image_guidance_scale, noise_level", "", "the same", works=True),
    Word("denoising_start, denoising_end", "a part of the run", "the same", works=True),
    Word("prompt_2, negative_prompt_2", "SDXL's second prompts", "the same", works=True),
    Word(
        "pooled_prompt_embeds, negative_pooled_prompt_embeds",
        "arrays",
        "the same, as NumPy arrays",
        works=True,
    ),
    Word("original_size, crops_coords_top_left, target_size", "SDXL's sizes", "the same", works=True),
    Word(
        "negative_original_size, negative_crops_coords_top_left, negative_target_size",
        "the same for the negative prompt",
        "the same; one without an effect is an error",
        works=True,
    ),
    Word("aesthetic_score, negative_aesthetic_score", "for SDXL's refiner", "the same", works=True),
    Word("generator", "the noise", "the same, or shorter: seed=0", works=True),
    Word("callback_on_step_end", "called after each step", "the same, with NumPy arrays", works=True),
    Word("callback_on_step_end_tensor_inputs", "what it is given", "the same", works=True),
    Word(
        'output_type "pil", "np", "latent"',
        "the type of images",
        'the same; "pt": torch.from_numpy',
        works=True,
    ),
    Word("return_dict", "an object, or a tuple", "take the result as either", (None, True, False)),
    Word(
        "callback",
        "called with the step, the timestep and the latents",
        "write callback_on_step_end=, which is called with (pipeline, step, timestep, tensors)",
        (None,),
    ),
    Word("callback_steps", "how often it is called", "test the step in callback_on_step_end", (None, 1)),
    *_OTHERS,
    *_OWN_WORDS,
)
"""Arguments of a call."""

REQUESTING = (
    Word("generator", "the noise", "give seed= to the Request, or generator= to a call of the pipeline"),
    Word("scheduler", "the scheduler", "give scheduler= to pipeline.plan or pipeline.stream"),
    Word("spacing", "the spacing", "give spacing= to pipeline.plan or pipeline.stream"),
    Word("callback_on_step_end*", "called after each step", "iterate over pipeline.stream(request)"),
    *(word for word in CALLING if not word.works),
)
"""Arguments of a `Request`."""

MOVING = (
    *same("device torch_device", "where to run", "give it as the first argument, or as provider="),
    *same("dtype torch_dtype", "the precision", _PRECISION, (None,)),
    Word("silence_dtype_warnings", "fewer warnings", "remove it", (None, True, False)),
)
"""Arguments of `to`."""

TEXTUAL_INVERSION = (
    Word("pretrained_model_name_or_path", "the file", "give the file as the first argument, or as path="),
    Word("weight_name", "the file in a folder", "give the path of the file itself", (None,)),
    Word("subfolder", "a folder inside a folder", "give the path of the file itself", (None, "")),
    Word("tokens", "its words", "write token="),
    Word("tokenizer", "another tokenizer", _WHOLE, (None,)),
    Word("text_encoder", "another text encoder", _WHOLE, (None,)),
    Word(
        "use_safetensors", "which file format to read", "remove it; only .safetensors is read", (None, True)
    ),
    *same(
        "cache_dir force_download local_files_only revision proxies use_auth_token",
        "how to download",
        "download the file, for example with hf download",
        (None, False),
    ),
)
"""Arguments of `load_textual_inversion` and `unload_textual_inversion`."""

IP_ADAPTER = (
    *same(
        "pretrained_model_name_or_path_or_dict pretrained_model_name_or_path",
        "the file",
        "give the file as the first argument, or as path=",
    ),
    Word("image_encoder_folder", "what sees the images", "write image_encoder=", (None, "image_encoder")),
    Word("low_cpu_mem_usage", "how to load", "remove it; weights are mapped", (None, True, False)),
    *same("force_download local_files_only revision proxies", "how to download", "remove it", (None, False)),
)
"""Arguments of `load_ip_adapter`."""

_UNLOADING = (
    Word("token", "its words", "write tokens="),
    *(row for row in TEXTUAL_INVERSION if row.harmless),
)
_PLANNING = (
    Word("*", "a setting of images", "make a Request(…) with it, and give that as the first argument"),
)
_BAR = (
    Word("*", "a progress bar", "remove it; sdrt draws none in Python, and pipeline.stream yields the steps"),
)

_CONFIG = "pass config= with a folder or hub id in diffusers' layout"
SINGLE_FILE = (
    Word("pretrained_model_link_or_path", "the file", "give the file as the first argument, or as model="),
    Word("config", "the configs of another model", "the same", works=True),
    *same("original_config original_config_file", "a config of CompVis", _CONFIG, (None,)),
    Word("scheduler_type", "another scheduler", _ASSIGN, (None,)),
    Word("load_safety_checker", "a filter for images", _OWN_CHECKER, (None, False)),
    Word("image_size", "the usual size", "give width= and height= to the call", (None,)),
    Word(
        "extract_ema",
        "the averaged weights",
        "remove it; the plain weights are used, as in diffusers",
        (None, False),
    ),
    Word("scaling_factor", "the scale of latents", _CONFIG, (None,)),
    Word("num_in_channels", "the inputs of the U-Net", "remove it; sdrt reads it from the file", (None,)),
    Word("upcast_attention", "attention in float32", "remove it; the CPU computes in float32", (None, False)),
    *LOADING,
)
"""Arguments of `from_single_file`."""

PIPELINE_ARGUMENTS: Mapping[str, Sequence[Word]] = {
    "__init__": CONSTRUCTING,
    "from_pretrained": LOADING,
    "from_single_file": SINGLE_FILE,
    "__call__": CALLING,
    "to": MOVING,
    "load_textual_inversion": TEXTUAL_INVERSION,
    "unload_textual_inversion": _UNLOADING,
    "load_ip_adapter": IP_ADAPTER,
    "set_progress_bar_config": _BAR,
    "plan": _PLANNING,
    "stream": _PLANNING,
    "num_evaluations": _PLANNING,
}
"""The words for the arguments of a pipeline's methods."""
