"""Methods and attributes of diffusers' and optimum's pipelines, and of their results and schedulers."""

from __future__ import annotations

from sdrt.foreign.word import Word, same

__all__ = ["PIPELINE", "RESULT", "SCHEDULER"]

_LORA = "remove it; set_adapters changes the weights themselves, so nothing is left to fuse"
_FUSE = (
    "remove it, and unload_lora_weights after it; a LoRA's weights are part of the model, and steps take no longer. "
    "For fuse_lora(lora_scale=0.7), write set_adapters(names, 0.7)"
)
_LORA_SCALE = "pass lora_scale= to the call, or weights to set_adapters"
_ENCODER = "pass image_encoder= to from_pretrained or load_ip_adapter"
_MEMORY = "load with from_pretrained(…, low_vram=True)"
_TILES = "load with from_pretrained(…, vae_tiling=True); images above 1024x1024 are in tiles anyway"
_FUSED = "remove it; the exported graphs have fused attention"
_FREEU = "remove it; sdrt has no FreeU"
_BAR = "remove it; sdrt draws no progress bar in Python, and pipeline.stream yields the steps"
_FOLDER = "the model is a folder of ONNX graphs, pipeline.model.path"
_STOP = "give the call cancel=, such as a threading.Event(), or close the generator of pipeline.stream"
_EXPORT = "export the checkpoint: sdrt export CHECKPOINT -o model/"
_OPTION = "it is an argument of the call, and result.request has the value that was used"
_PLAN = "pipeline.plan(Request(…)) checks a request and plans its steps"
_INSIDE = "sdrt does it inside a call; pipeline.stream yields the steps"
_SINGLE = "write StableDiffusionPipeline.from_single_file(…)"
_HOOKS = "remove it; sdrt has no such hooks"

PIPELINE = (
    Word(
        "scheduler",
        "read or assign a scheduler",
        "the same; also a name: pipeline.scheduler = 'euler'",
        works=True,
    ),
    Word("to", "choose the device", "the same", works=True),
    Word("load_textual_inversion, unload_textual_inversion", "textual inversions", "the same", works=True),
    Word("load_lora_weights, set_adapters, unload_lora_weights", "LoRAs", "the same", works=True),
    Word("get_active_adapters, get_list_adapters", "the names of LoRAs", "the same", works=True),
    Word("load_ip_adapter, set_ip_adapter_scale, unload_ip_adapter", "image prompts", "the same", works=True),
    Word("delete_adapters, disable_lora, enable_lora", "which LoRAs are in use", "the same", works=True),
    Word("set_progress_bar_config(disable=True)", "no progress bar", "the same: there is none", works=True),
    Word("safety_checker", "a filter for images", "the same: None turns the model's own off", works=True),
    Word("from_single_file", "loads a single-file checkpoint", "the same", works=True),
    Word("from_pipe", "another pipeline with the same parts", "use the same pipeline; it does every task"),
    Word("from_config", "a pipeline from a config", "write StableDiffusionPipeline.from_pretrained(…)"),
    Word("download", "downloads a model", "write StableDiffusionPipeline.from_pretrained(…)"),
    Word("save_pretrained", "writes the model", "copy its folder, pipeline.model.path"),
    Word("save_config", "writes the config", "copy its folder, pipeline.model.path"),
    Word("push_to_hub", "uploads the model", "upload its folder with hf upload"),
    Word("components", "the parts of a pipeline", _FOLDER),
    Word("unet", "the U-Net", _FOLDER),
    Word("vae", "the VAE", _FOLDER),
    Word("vae_encoder", "the VAE's encoder", _FOLDER),
    Word("vae_decoder", "the VAE's decoder", _FOLDER),
    Word("text_encoder", "the text encoder", _FOLDER),
    Word("tokenizer", "the tokenizer", _FOLDER),
    Word(
        "feature_extractor",
        "what the filter of images reads",
        "remove it; sdrt reads its config from the model",
    ),
    Word("image_encoder", "CLIP's vision encoder for image prompts", _ENCODER),
    Word("image_processor", "reads images", "pass a file's name, a PIL image or an array as image="),
    Word("vae_scale_factor", "pixels for each latent", "write pipeline.model.capabilities.vae_scale_factor"),
    Word("config", "the config", "pipeline.model has what is known of the model"),
    Word("name_or_path", "the model", "write pipeline.model.name or pipeline.model.path"),
    *same("device _execution_device", "where it runs", "write pipeline.provider"),
    Word("dtype", "the precision", "sdrt info MODEL shows it, and sdrt export --dtype chooses it"),
    Word("hf_device_map", "which device holds what", "write pipeline.provider"),
    Word("reset_device_map", "which device holds what", 'write pipeline.to("cpu")'),
    Word("cuda", "moves to the GPU", 'write pipeline.to("cuda")'),
    Word("cpu", "moves to the CPU", 'write pipeline.to("cpu")'),
    Word("half", "the precision", "export in it: sdrt export --dtype fp16"),
    Word("float", "the precision", "export in it: sdrt export --dtype fp32"),
    Word("compile", "compiles the model", _FUSED),
    Word("enable_attention_slicing", "attention in parts", _MEMORY),
    Word("disable_attention_slicing", "attention in parts", _FUSED),
    Word("set_attention_slice", "attention in parts", _MEMORY),
    Word("enable_model_cpu_offload", "one component on the GPU at a time", _MEMORY),
    Word("enable_sequential_cpu_offload", "one layer on the GPU at a time", _MEMORY),
    Word("enable_group_offload", "some layers on the GPU at a time", _MEMORY),
    Word("enable_vae_tiling", "the VAE in tiles", _TILES),
    Word("disable_vae_tiling", "the VAE in tiles", "load with from_pretrained(…, vae_tiling=False)"),
    Word("enable_vae_slicing", "the VAE for one image at a time", _MEMORY),
    Word("disable_vae_slicing", "the VAE for one image at a time", "remove it"),
    *same(
        "enable_xformers_memory_efficient_attention disable_xformers_memory_efficient_attention "
        "set_use_memory_efficient_attention_xformers fuse_qkv_projections unfuse_qkv_projections",
        "fused attention",
        _FUSED,
    ),
    *same("enable_freeu disable_freeu", "FreeU", _FREEU),
    *same("fuse_lora unfuse_lora", "a LoRA in the model's weights", _FUSE),
    *same("*lora* *adapters", "LoRA", _LORA),
    *same(
        "prepare_ip_adapter_image_embeds encode_image",
        "embeddings of an image prompt",
        "pass the image as ip_adapter_image=",
    ),
    *same(
        "encode_prompt _encode_prompt",
        "embeddings of a prompt",
        "pass the prompt; a call also takes prompt_embeds=",
    ),
    Word("maybe_convert_prompt", "words of textual inversions", "pass the prompt; sdrt finds their words"),
    Word("check_inputs", "checks arguments", _PLAN),
    Word("get_timesteps", "the timesteps of a run", _PLAN),
    Word("num_timesteps", "the number of steps", "write pipeline.num_evaluations(Request(…))"),
    Word("prepare_latents", "the first latents", "pass latents= to the call"),
    Word("prepare_mask_latents", "the latents of a mask", "pass mask_image= to the call"),
    Word("prepare_image_latents", "the latents of an image", "pass image= to the call"),
    Word("upcast_vae", "the VAE in float32", "export it so: sdrt export --dtype fp32"),
    Word("pack_weights", "weights in another format", "sdrt export --dtype chooses how weights are stored"),
    Word("prepare_extra_step_kwargs", "arguments of a step", _INSIDE),
    Word("get_guidance_scale_embedding", "guidance as an embedding", "pass guidance_scale= to the call"),
    Word("decode_latents", "latents to images", "pipeline.preview(latents) makes coarse images of them"),
    Word("numpy_to_pil", "arrays to images", 'pass output_type="pil" to the call'),
    Word(
        "requires_safety_checker",
        "whether there must be a filter",
        "remove it; sdrt runs the safety checker that the model has",
    ),
    Word("eval", "switches training off", "remove it; sdrt only makes images"),
    Word("train", "switches training on", "sdrt only makes images: train with diffusers, then export"),
    Word("requires_grad_", "switches gradients off", "remove it; sdrt has none"),
    Word("from_ckpt", "loads a single-file checkpoint", _SINGLE),
    Word("run_safety_checker", "a filter for images", "remove it; a call runs it"),
    *same("progress_bar _progress_bar_config", "a progress bar", _BAR),
    *same("_interrupt interrupt", "stops a run", _STOP),
    *same("guidance_scale _guidance_scale", "the guidance of a call", _OPTION),
    *same("guidance_rescale image_guidance_scale clip_skip", "an option of a call", _OPTION),
    Word("cross_attention_kwargs", "options of attention, such as a LoRA's scale", _LORA_SCALE),
    Word(
        "do_classifier_free_guidance",
        "whether there is guidance",
        "guidance is on if result.request.guidance_scale is above 1",
    ),
    *same("maybe_free_model_hooks remove_all_hooks", "hooks that move components", _HOOKS),
    Word("register_modules", "changes the parts of a pipeline", _EXPORT),
    Word("parameters", "the weights", _FOLDER),
    Word("providers", "the execution providers", "write pipeline.provider"),
    Word("use_io_binding", "tensors that stay on the device", "remove it; sdrt binds them itself"),
)
"""Methods and attributes of a pipeline."""

RESULT = (
    Word("images", "the images", "the same", works=True),
    Word(
        "nsfw_content_detected",
        "what the filter of images found",
        "the same; None if no safety checker has seen the images",
        works=True,
    ),
    Word('result[0], result["images"]', "the images", "the same", works=True),
    Word("to_tuple", "the result as a tuple", "unpack it: images, nsfw = result"),
    Word("keys", "the names in a result", "the images are result.images"),
    Word("items", "the names and values in a result", "the images are result.images"),
    Word("image", "the image", "write result.images[0]"),
    Word("seed", "the seed", "write result.seeds[0]"),
    *same("info parameters", "how an image was made", "write result.metadata(0)"),
)
"""Attributes of what a call returns."""

SCHEDULER = (
    Word("config", "the config, for from_config", "the same", works=True),
    Word(
        "from_pretrained",
        "reads a config",
        "assign the file's path: pipeline.scheduler = 'scheduler_config.json'",
    ),
    *same(
        "save_pretrained save_config", "writes the config", "write json.dump(pipeline.scheduler.config, file)"
    ),
    Word("compatibles", "the schedulers that suit a model", "`sdrt schedulers` lists them"),
    Word("timesteps", "the timesteps of a run", "write scheduler.plan(steps).timesteps"),
    Word("sigmas", "the noise levels of a run", "write scheduler.plan(steps).sigmas"),
    Word("set_timesteps", "plans a run", "write scheduler.plan(steps)"),
    Word("num_inference_steps", "the number of steps", "it is an argument of the call"),
    Word("init_noise_sigma", "the first noise level", "write scheduler.plan(steps).init_scale"),
    *same("step scale_model_input", "one step", _INSIDE),
    Word("add_noise", "noise on latents", "pass image= and strength= to the call"),
    Word("order", "calls of the U-Net in a step", "write scheduler.sampler.evaluations"),
    *same("betas alphas alphas_cumprod", "the training's noise", "write scheduler.noise_schedule"),
)
"""Attributes of a scheduler."""
