"""Names that people import from diffusers and optimum."""

from __future__ import annotations

from sdrt.foreign.word import Word

__all__ = ["IMPORTS"]

_ONE = "import StableDiffusionPipeline, the one pipeline for every task"
_IMAGE = "import StableDiffusionPipeline, and pass image= and strength= to its call"
_MASK = "import StableDiffusionPipeline, and pass image=, mask_image= and composite=False to its call"
_FAMILY = "sdrt runs Stable Diffusion 1, 2 and XL, so keep diffusers for this model"
_CONTROL = "sdrt has none, so keep diffusers for this pipeline"
_COMPONENT = "remove it; StableDiffusionPipeline.from_pretrained loads the whole model folder"

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
    Word(
        "StableDiffusionUpscalePipeline",
        "the x4 upscaler",
        "import StableDiffusionPipeline, and pass image= and noise_level= to its call",
    ),
    Word(
        "StableDiffusionInstructPix2PixPipeline",
        "instructions",
        "import StableDiffusionPipeline, and pass image= and image_guidance_scale= to its call",
    ),
    Word("StableDiffusionXLPipeline", "text to image with SDXL", _ONE),
    Word("StableDiffusionXLImg2ImgPipeline", "image to image with SDXL, and its refiner", _IMAGE),
    Word("StableDiffusionXLInpaintPipeline", "inpainting with SDXL", _MASK),
    Word(
        "StableDiffusionXLInstructPix2PixPipeline",
        "instructions with SDXL",
        "import StableDiffusionPipeline, and pass image= and image_guidance_scale= to its call",
    ),
    Word("OnnxStableDiffusionPipeline", "text to image with ONNX", _ONE),
    Word("StableDiffusionOnnxPipeline", "text to image with ONNX", _ONE),
    Word("OnnxStableDiffusionImg2ImgPipeline", "image to image with ONNX", _IMAGE),
    Word("OnnxStableDiffusionInpaintPipeline", "inpainting with ONNX", _MASK),
    Word("OnnxStableDiffusionInpaintPipelineLegacy", "inpainting with ONNX", _MASK),
    Word(
        "OnnxStableDiffusionUpscalePipeline",
        "the x4 upscaler with ONNX",
        "import StableDiffusionPipeline, and pass image= and noise_level= to its call",
    ),
    Word("ORTDiffusionPipeline", "any pipeline of optimum", _ONE),
    Word("ORTStableDiffusionPipeline", "text to image with optimum", _ONE),
    Word("ORTStableDiffusionImg2ImgPipeline", "image to image with optimum", _IMAGE),
    Word("ORTStableDiffusionInpaintPipeline", "inpainting with optimum", _MASK),
    Word("ORTStableDiffusionXLPipeline", "text to image with SDXL and optimum", _ONE),
    Word("ORTStableDiffusionXLImg2ImgPipeline", "image to image with SDXL and optimum", _IMAGE),
    Word("ORTStableDiffusionXLInpaintPipeline", "inpainting with SDXL and optimum", _MASK),
    Word("ORTPipelineForText2Image", "text to image with optimum", _ONE),
    Word("ORTPipelineForImage2Image", "image to image with optimum", _IMAGE),
    Word("ORTPipelineForInpainting", "inpainting with optimum", _MASK),
    Word("*ControlNet*", "guidance by a second image", _CONTROL),
    Word("*StableDiffusion3*", "Stable Diffusion 3", _FAMILY),
    Word("*Flux*", "Flux", _FAMILY),
    Word("LatentConsistencyModelPipeline", "latent consistency models", _ONE),
    Word("LatentConsistencyModelImg2ImgPipeline", "the same, image to image", _IMAGE),
    Word("ORTLatentConsistencyModelPipeline", "the same with optimum", _ONE),
    Word("ORTLatentConsistencyModelImg2ImgPipeline", "the same with optimum, image to image", _IMAGE),
    Word(
        "StableDiffusionSafetyChecker",
        "a filter for images",
        "remove it; sdrt runs the safety checker that the model has",
    ),
    Word("Autoencoder*", "a component of a model", _COMPONENT),
    Word("UNet*", "a component of a model", _COMPONENT),
    Word("CLIP*", "a component of a model", _COMPONENT),
    Word("OnnxRuntimeModel", "a component of a model", _COMPONENT),
    Word("ORT*", "a class of optimum", _ONE),
    Word("load_image", "reads an image", "pass the file's name, or a PIL image, as image="),
    Word("make_image_grid", "puts images on a sheet", "use sdrt generate --grid, or sdrt plot"),
    Word("utils", "helpers such as load_image", "pass the file's name, or a PIL image, as image="),
    Word("logging", "how much is said", "pass notify= to StableDiffusionPipeline.from_pretrained"),
    Word("pipelines", "pipelines", _ONE),
    Word("models", "components of a model", _COMPONENT),
    Word(
        "loaders", "LoRA, textual inversions", "pipeline.load_textual_inversion loads words; sdrt has no LoRA"
    ),
    Word("image_processor", "reads images", "pass the file's name, or a PIL image, as image="),
    Word("Compel", "weights in prompts", 'pass prompt_syntax="compel" to a call'),
    Word("Flax*", "a class for JAX", _ONE),
    Word(
        "*Scheduler",
        "a scheduler that sdrt lacks",
        'choose another by name, as in pipeline.scheduler = "euler" (`sdrt schedulers` lists them)',
    ),
    Word("*Pipeline", "another pipeline", _ONE),
    Word("AutoPipeline*", "another pipeline", _ONE),
    Word("*StableDiffusion*", "another pipeline", _ONE),
)
"""Names that `from sdrt import …` does not find. Every scheduler's class that sdrt has can be imported."""
