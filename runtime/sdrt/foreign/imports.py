"""Names that people import from diffusers and optimum."""

from __future__ import annotations

from sdrt.foreign.word import Word, same

__all__ = ["IMPORTS"]

_ONE = "import StableDiffusionPipeline, the one pipeline for every task"
_IMAGE = "import StableDiffusionPipeline, and pass image= and strength= to its call"
_MASK = "import StableDiffusionPipeline, and pass image=, mask_image= and composite=False to its call"
_NOISE = "import StableDiffusionPipeline, and pass image= and noise_level= to its call"
_INSTRUCTION = "import StableDiffusionPipeline, and pass image= and image_guidance_scale= to its call"
_READ = "pass the file's name, or a PIL image, as image="
_FAMILY = "sdrt runs Stable Diffusion 1, 2 and XL, so keep diffusers for this model"
_CONTROL = "import StableDiffusionPipeline, and pass controlnet= and control_image="
_ADAPTER = (
    "import StableDiffusionPipeline, and pass the T2I-Adapter as controlnet=, and its image as control_image="
)
_COMPONENT = "remove it; StableDiffusionPipeline.from_pretrained loads the whole model folder"


def _pipelines(prefix: str, of: str) -> tuple[Word, ...]:
    """The three pipelines of one kind of model."""
    return (
        Word(f"{prefix}Pipeline", f"text to image {of}", _ONE),
        Word(f"{prefix}Img2ImgPipeline", f"image to image {of}", _IMAGE),
        Word(f"{prefix}InpaintPipeline", f"inpainting {of}", _MASK),
    )


IMPORTS = (
    Word("StableDiffusionPipeline", "text to image", "the same, and it does every task", works=True),
    Word(
        "EulerDiscreteScheduler", "a scheduler", "the same, with from_config and from_pretrained", works=True
    ),
    Word("DiffusionPipeline", "any pipeline, by the class in the folder", _ONE),
    Word("AutoPipelineForText2Image", "text to image", _ONE),
    Word("AutoPipelineForImage2Image", "image to image", _IMAGE),
    Word("AutoPipelineForInpainting", "inpainting", _MASK),
    Word("StableDiffusionImg2ImgPipeline", "image to image", _IMAGE),
    Word("StableDiffusionInpaintPipeline", "inpainting", _MASK),
    Word("StableDiffusionInpaintPipelineLegacy", "inpainting", _MASK),
    Word("StableDiffusionUpscalePipeline", "the x4 upscaler", _NOISE),
    Word("StableDiffusionInstructPix2PixPipeline", "instructions", _INSTRUCTION),
    Word("StableDiffusionXLPipeline", "text to image with SDXL", _ONE),
    Word("StableDiffusionXLImg2ImgPipeline", "image to image with SDXL, and its refiner", _IMAGE),
    Word("StableDiffusionXLInpaintPipeline", "inpainting with SDXL", _MASK),
    Word("StableDiffusionXLInstructPix2PixPipeline", "instructions with SDXL", _INSTRUCTION),
    *same("OnnxStableDiffusionPipeline StableDiffusionOnnxPipeline", "text to image with ONNX", _ONE),
    Word("OnnxStableDiffusionImg2ImgPipeline", "image to image with ONNX", _IMAGE),
    Word("OnnxStableDiffusionInpaintPipeline", "inpainting with ONNX", _MASK),
    Word("OnnxStableDiffusionInpaintPipelineLegacy", "inpainting with ONNX", _MASK),
    Word("OnnxStableDiffusionUpscalePipeline", "the x4 upscaler with ONNX", _NOISE),
    Word("ORTDiffusionPipeline", "any pipeline of optimum", _ONE),
    *_pipelines("ORTStableDiffusion", "with optimum"),
    *_pipelines("ORTStableDiffusionXL", "with SDXL and optimum"),
    Word("ORTPipelineForText2Image", "text to image with optimum", _ONE),
    Word("ORTPipelineForImage2Image", "image to image with optimum", _IMAGE),
    Word("ORTPipelineForInpainting", "inpainting with optimum", _MASK),
    Word("*ControlNet*", "guidance by a second image", _CONTROL),
    *same(
        "T2IAdapter MultiAdapter StableDiffusionAdapterPipeline StableDiffusionXLAdapterPipeline",
        "guidance by a second image",
        _ADAPTER,
    ),
    Word("*StableDiffusion3*", "Stable Diffusion 3", _FAMILY),
    Word("*Flux*", "Flux", _FAMILY),
    Word("LatentConsistencyModelPipeline", "latent consistency models", _ONE),
    Word("LatentConsistencyModelImg2ImgPipeline", "the same, image to image", _IMAGE),
    Word("ORTLatentConsistencyModelPipeline", "the same with optimum", _ONE),
    Word("ORTLatentConsistencyModelImg2ImgPipeline", "the same with optimum, image to image", _IMAGE),
    Word("StableDiffusionSafetyChecker", "a filter for images", "remove it; sdrt runs the model's own"),
    *same("Autoencoder* UNet* CLIP* OnnxRuntimeModel", "a component of a model", _COMPONENT),
    Word("ORT*", "a class of optimum", _ONE),
    Word("load_image", "reads an image", _READ),
    Word("make_image_grid", "puts images on a sheet", "use sdrt generate --grid, or sdrt plot"),
    Word("utils", "helpers such as load_image", _READ),
    Word("logging", "how much is said", "pass notify= to StableDiffusionPipeline.from_pretrained"),
    Word("pipelines", "pipelines", _ONE),
    Word("models", "components of a model", _COMPONENT),
    Word(
        "loaders",
        "LoRA, textual inversions",
        "pipeline.load_textual_inversion loads words, and load_lora_weights LoRAs",
    ),
    Word("image_processor", "reads images", _READ),
    Word("Compel", "weights in prompts", 'pass prompt_syntax="compel" to a call'),
    Word("Flax*", "a class for JAX", _ONE),
    Word(
        "*Scheduler",
        "a scheduler that sdrt lacks",
        'choose another by name, as in pipeline.scheduler = "euler" (`sdrt schedulers` lists them)',
    ),
    *same("*Pipeline AutoPipeline* *StableDiffusion*", "another pipeline", _ONE),
)
"""Names that `from sdrt import …` does not find. Every scheduler's class that sdrt has can be imported."""
