"""Options and commands that people know from A1111, diffusers' scripts and other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdrt.foreign.word import Word

__all__ = ["COMMANDS", "OPTIONS"]

_LORA = "sdrt generate and sdrt plot take LoRAs"
_FILE = "write --lora FILE:0.8, or --lora-dir DIR for <lora:name:0.8> in prompts"
_CONTROL = "give the network with --controlnet"
_ADAPTER = "give the adapter with --ip-adapter"
_PRECISION = "the precision is chosen once, by sdrt export CHECKPOINT --dtype fp16"
_MODEL = "write --model (-m)"
_NEGATIVE = "write --negative-prompt (-n)"
_PROMPT = 'write the prompt without an option, in quotes: sdrt generate "a red circle"'
_GUIDANCE = "write --guidance-scale"
_STEPS = "write --steps"
_COUNT = "write --count; --batch-size says how many at once"
_IMAGE = "write --image (-i)"
_OUTPUT = "write --output (-o), with a file or a folder"
_SIZE = "write --width (-W) and --height (-H)"
_HIRES = "write --hires 2, which enlarges the image and denoises it again"
_MEMORY = "write --low-vram"
_FUSED = "leave it out; the exported graphs have fused attention"
_SERVER = "write sdrt serve, which makes images over HTTP (docs/serve.md)"
_PART = "it is a part of the model: export a checkpoint that has it, with sdrt export"
_CHECKER = "leave it out; the model's own safety checker runs unless --no-safety-checker is given"
_NONE = "sdrt has nothing like it"
_NOISE = "sdrt has no variation seeds; --seed and --eta are what there is"

_PROVIDERS = (
    ("cuda", "cuda"),
    ("gpu", "cuda"),
    ("use-gpu", "cuda"),
    ("cpu", "cpu"),
    ("use-cpu", "cpu"),
    ("mps", "coreml"),
    ("coreml", "coreml"),
    ("openvino", "openvino"),
    ("xpu", "openvino"),
    ("tensorrt", "tensorrt"),
    ("trt", "tensorrt"),
)


def _same(names: str, what: str, ours: str) -> tuple[Word, ...]:
    """Rows for several names of one thing, given with spaces between them."""
    return tuple(Word(name, what, ours) for name in names.split())


_ANY = (
    *_same("controlnet-* control-* control", "guidance by a second image", _CONTROL),
    *_same("ip-adapter-*", "an image as a prompt", _ADAPTER),
    *_same("api listen port share host server server-name webui", "a server", _SERVER),
    *_same("verbose", "more messages", "leave it out; --debug shows the traceback of an error"),
    *_same(
        "local-files-only offline",
        "no download",
        "set the environment variable HF_HUB_OFFLINE=1",
    ),
)

_GENERATE = (
    Word("sampler", "the scheduler", "the same; it is --scheduler", works=True),
    Word("cfg-scale", "the guidance", "the same; it is --guidance-scale", works=True),
    Word("device", "where to run", "the same; it is --provider", works=True),
    Word("denoising-strength", "how much to change the image", "the same; it is --strength", works=True),
    Word("num-inference-steps", "the number of steps", "the same; it is --steps", works=True),
    *(Word(name, "where to run", f"write --provider {ours}") for name, ours in _PROVIDERS),
    *_same("rocm directml", "where to run", "sdrt has no provider for it; --provider cpu runs everywhere"),
    *_same("fp16 half fp32 bf16 float16 float32 precision dtype torch-dtype", "the precision", _PRECISION),
    *_same("no-half no-half-vae upcast-sampling variant full-precision", "the precision", _PRECISION),
    *_same("int8 quantize quantization", "the precision", "it is chosen once, by sdrt export --dtype int8"),
    *_same(
        "model-id model-path model-name model-dir ckpt checkpoint ckpt-path repo repo-id", "the model", _MODEL
    ),
    *_same("pretrained-model-name-or-path", "the model", _MODEL),
    *_same("negative neg neg-prompt n-prompt uc", "what the image should not show", _NEGATIVE),
    *_same("prompt prompts text p", "the prompt", _PROMPT),
    *_same("cfg scale guidance guidance-weight", "the guidance", _GUIDANCE),
    *_same("sampler-name sampling-method sample-method", "the scheduler", "write --scheduler"),
    *_same("schedule schedule-type scheduler-type sigma-schedule", "the spacing", "write --spacing"),
    *_same("karras use-karras-sigmas", "the spacing", "write --spacing karras"),
    *_same("plms", "the scheduler", "write --scheduler pndm"),
    *_same("ddim", "the scheduler", "write --scheduler ddim"),
    *_same("dpm dpm-solver", "the scheduler", "write --scheduler dpmpp_2m"),
    *_same("ddim-eta", "the noise of DDIM", "write --eta"),
    *_same("num-steps sampling-steps ddim-steps inference-steps step", "the number of steps", _STEPS),
    *_same("batch bs", "images at once", "write --batch-size (-b)"),
    *_same(
        "num-images n-images num-samples n-samples n-iter batch-count number", "the number of images", _COUNT
    ),
    *_same("num-images-per-prompt images iterations repeat amount", "the number of images", _COUNT),
    *_same("seeds", "several seeds", "write --seed 7 --count 3 for the seeds 7, 8 and 9"),
    *_same("subseed subseed-strength variation-seed variation-strength ensd", "variations of a seed", _NOISE),
    *_same("size resolution dimensions res", "the size", _SIZE),
    *_same("w h", "the size", _SIZE),
    *_same("init-image init-img img input input-image image-path init", "the image to start from", _IMAGE),
    *_same("denoise denoising img-strength image-strength", "how much to change it", "write --strength"),
    *_same("mask-img mask-file inpaint", "the mask", "write --mask, with --image"),
    *_same(
        "out outdir out-dir output-dir output-path output-file outfile save save-path",
        "where to write",
        _OUTPUT,
    ),
    *_same("format extension", "the file format", "the name of --output ends in .png, .jpg or .webp"),
    *_same("overwrite yes", "existing files", "write --force (-f)"),
    *_same(
        "upscale upscaler hires-fix hr enable-hr hr-scale hr-upscaler upscale-by", "a larger image", _HIRES
    ),
    *_same("tiling", "textures without seams", "sdrt makes none; --tile-size makes large images in windows"),
    *_same("tile tiled tiles", "large images in windows", "write --tile-size 512"),
    Word("vae", "another VAE", "the same, for a checkpoint", works=True),
    Word("text-encoder", "another text encoder", "the same, for a single-file checkpoint", works=True),
    Word("config", "the configs of another model", "the same, for a single-file checkpoint", works=True),
    Word(
        "prediction-type", "what a checkpoint predicts", "the same, for a single-file checkpoint", works=True
    ),
    *_same("vae-path vae-dir", "another VAE", "write --vae FILE"),
    *_same("clip clip-l clip-g te te1 te2", "another text encoder", "write --text-encoder FILE"),
    *_same("unet", "another component", _PART),
    *_same("embeddings embeddings-dir textual-inversion ti", "textual inversions", "write --embedding FILE"),
    *_same("xformers opt-* attention-slicing enable-attention-slicing", "fused attention", _FUSED),
    *_same("medvram lowvram low-memory cpu-offload offload vae-slicing", "less memory", _MEMORY),
    *_same("enable-model-cpu-offload sequential-cpu-offload enable-cpu-offload", "less memory", _MEMORY),
    *_same("safety-checker disable-safety-checker nsfw", "a filter for images", _CHECKER),
    *_same("styles style hypernetwork restore-faces face-restoration adetailer freeu", "A1111's", _NONE),
    *_same("face-restore gfpgan codeformer facefix tome-ratio token-merging-ratio", "A1111's", _NONE),
    *_same("skip-grid", "a contact sheet", "leave it out"),
    *_same("skip-save laion400m fixed-code f c", "CompVis'", "leave it out"),
    *_same("num-threads jobs cores", "CPU threads", "write --threads"),
    *_same("token hf-token use-auth-token", "an access token", "set the environment variable HF_TOKEN"),
    *_same("lora-* loras no-lora", "a LoRA", _FILE),
    *_ANY,
)

_IN_PLOTS = {
    _COUNT: "vary the seed: -x seed=1,2,3",
    "write --batch-size (-b)": "leave it out; a plot makes one image at a time",
    "write --seed 7 --count 3 for the seeds 7, 8 and 9": "vary the seed: -x seed=7,8,9",
    _PROMPT: 'write the prompt without an option, in quotes: sdrt plot "a red circle" -x steps=5,10',
}

_EXPORT = (
    *_same(
        "model m model-path model-id model-name checkpoint ckpt",
        "the checkpoint",
        "write it without an option",
    ),
    *_same("pretrained-model-name-or-path", "the checkpoint", "write it without an option"),
    *_same("fp16 half float16 precision", "the precision", "write --dtype fp16"),
    *_same("fp32 float32", "the precision", "write --dtype fp32"),
    *_same("int8 quantize quantization", "the precision", "write --dtype int8"),
    *_same("output-path output-dir outdir out", "the folder", "write --output (-o)"),
    *_same("provider device cuda gpu", "where it will run", "write --target cuda, cpu or portable"),
    *_same("opset task framework library", "an option of other exporters", "leave it out"),
    *_same("overwrite yes", "an existing folder", "write --force (-f)"),
    *_same("lora lora-* loras", "a LoRA", _LORA),
    *_ANY,
)

_LORAS = _same("lora lora-* loras", "a LoRA", _LORA)
_MEASURED = (
    *_LORAS,
    *(Word(name, "where to run", f"write --provider {ours}") for name, ours in _PROVIDERS),
    *_ANY,
)

OPTIONS: Mapping[str, Sequence[Word]] = {
    "generate": _GENERATE,
    "plot": tuple(
        Word(word.name, word.what, _IN_PLOTS.get(word.ours, word.ours), works=word.works)
        for word in _GENERATE
    ),
    "export": _EXPORT,
    "benchmark": _MEASURED,
    "doctor": _MEASURED,
}
"""Words for the options of each command, without their dashes."""

_GENERATES = 'write sdrt generate "a red circle"'

COMMANDS = (
    *_same("server start web webui ui api gradio listen daemon", "a server", _SERVER),
    *_same(
        "txt2img text2img text-to-image t2i run make draw create gen image imagine sample",
        "makes images",
        _GENERATES,
    ),
    *_same(
        "img2img image2image image-to-image i2i",
        "image to image",
        'write sdrt generate "…" -i in.png --strength 0.6',
    ),
    *_same("inpaint inpainting", "inpainting", 'write sdrt generate "…" -i in.png --mask mask.png'),
    *_same("outpaint outpainting", "outpainting", 'write sdrt generate "…" -i in.png --outpaint 768x512'),
    *_same("upscale upscaling hires", "a larger image", 'write sdrt generate "…" --hires 2'),
    *_same("grid xyz xy compare", "compares settings", 'write sdrt plot "…" -x steps=5,10'),
    *_same("convert onnx", "turns a checkpoint into ONNX", "write sdrt export CHECKPOINT -o model/"),
    *_same("quantize", "a model in 8 bits", "write sdrt export CHECKPOINT -o model/ --dtype int8"),
    *_same(
        "download pull install fetch",
        "downloads a model",
        'write sdrt generate "…" -m OWNER/NAME, which downloads it once',
    ),
    *_same("list ls model", "lists models", "write sdrt models"),
    *_same("bench measure profile", "measures a model", "write sdrt benchmark"),
    *_same("scheduler samplers sampler", "lists schedulers", "write sdrt schedulers"),
    *_same(
        "inspect show metadata exif describe png-info", "shows how an image was made", "write sdrt info FILE"
    ),
    *_same("check test env diagnose", "checks the installation", "write sdrt doctor"),
    *_same(
        "train finetune lora dreambooth", "trains a model", "train with diffusers, then export the checkpoint"
    ),
    *_same("merge", "merges models", "merge with diffusers, then export the checkpoint"),
    *_same("interrogate caption clip", "describes an image", _NONE),
    *_same("completions autocomplete", "shell completion", "write sdrt completion"),
    *_same("version", "the version", "write sdrt --version"),
)
"""Words for commands."""
