"""Opens CLIP's byte-level BPE: `tokenizer.json`, or the vocabulary, the merges and the configs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import wrong_key
from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.manifest import damaged, missing, read_json, unreadable

if TYPE_CHECKING:
    import tokenizers

__all__ = ["configured", "from_vocabulary", "load_bpe"]

# How CLIP splits a text into words (Radford et al. 2021): contractions, letters, single digits, other characters.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# CLIP's tokenizers read no merges past 49152 tokens, less the bytes and the two special ones. The first line is a
# title.
_MERGES = slice(1, 49152 - 256 - 2 + 1)
# The files may be a checkpoint's or an exported model's.
_AGAIN = "download or export the model again"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_DEFAULT_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}


def from_vocabulary(folder: Path) -> tokenizers.Tokenizer:
    """Build the tokenizer of a folder's `vocab.json` and `merges.txt`, as transformers' CLIPTokenizerFast builds it.

    It puts the start and the end token around a text.

    Raises:
        IntegrityError: a file is missing or damaged.
        UnsupportedModelError: an added token would get another id than the model expects.
    """
    from tokenizers import processors

    config, special = configured(folder)
    _require_vocabulary(folder)
    bpe = _build(folder, config, special)
    ends = {
        name: (special[f"{name}_token"], bpe.token_to_id(special[f"{name}_token"])) for name in ("bos", "eos")
    }
    # By position, because later versions of tokenizers call the second one `cls_token`.
    bpe.post_processor = processors.RobertaProcessing(
        ends["eos"], ends["bos"], add_prefix_space=False, trim_offsets=False
    )
    return bpe


def configured(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a folder's config with its table of special tokens, and the texts of these."""
    config = _read_optional(folder / "tokenizer_config.json")
    config |= _read_optional(folder / "special_tokens_map.json")
    return config, _special_tokens(folder, config)


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path, path.parent.name, remedy=_AGAIN) if path.exists() else {}


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each special token. The config gives it as a string or in an object's `content`."""
    special = dict(_DEFAULT_SPECIAL)
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        found = config.get(key)
        text = found.get("content") if isinstance(found, dict) else found
        if text is not None and not isinstance(text, str):
            raise wrong_key(folder, key, found, "a token's text", path=folder, component=folder.name)
        if text:
            special[key] = text
    return {"pad_token": special["eos_token"]} | special


def load_bpe(
    folder: Path, config: Mapping[str, Any], special: Mapping[str, str], *, prefers_vocabulary: bool
) -> tokenizers.Tokenizer:
    """Read `tokenizer.json`, or build the tokenizer of the vocabulary, as `Tokenizer` says."""
    import tokenizers

    path = folder / "tokenizer.json"
    if not path.exists() or (prefers_vocabulary and not _lacking(folder)):
        _require_vocabulary(folder)
        return _build(folder, config, special)
    read_json(path, path.parent.name, remedy=_AGAIN)
    with _translated(path):
        bpe = tokenizers.Tokenizer.from_file(str(path))
    # The file may ask for both, but `Tokenizer` pads and truncates itself, so that it can report truncation.
    bpe.no_padding()
    bpe.no_truncation()
    return bpe


def _lacking(folder: Path) -> list[str]:
    """The files of a vocabulary that a folder lacks."""
    return [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]


def _require_vocabulary(folder: Path) -> None:
    if lacking := _lacking(folder):
        raise damaged(
            folder / lacking[0],
            f"{folder / lacking[0]} is missing, and so is tokenizer.json",
            f"copy the whole model folder, or the folder {folder.name} of the checkpoint that it was made from",
            folder.name,
        )


def _build(folder: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> tokenizers.Tokenizer:
    """Build the tokenizer that transformers' CLIPTokenizerFast builds from the same files."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary, merges = _read_vocabulary(folder / "vocab.json"), _read_merges(folder / "merges.txt")
    with _translated(folder / "vocab.json"):
        model = models.BPE(
            vocab=vocabulary,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=special["unk_token"],
        )
    bpe = Tokenizer(model)
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    _add_tokens(bpe, folder, config, special)
    return bpe


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the errors that `tokenizers` raises for bad content, mostly plain `Exception`, into `IntegrityError`."""
    try:
        yield
    except Exception as error:
        # Python raises the other three for values of the wrong type or size. Any other error has another cause.
        if type(error) not in (Exception, OverflowError, TypeError, ValueError):
            raise
        raise damaged(
            path, f"{path} is not a valid tokenizer ({error})", component=path.parent.name
        ) from error


def _add_tokens(
    bpe: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any], special: Mapping[str, str]
) -> None:
    """Register the tokens that are found before the text is split into words, such as `<|endoftext|>`."""
    from tokenizers import AddedToken

    table = _added_tokens(folder, config)
    listed = {entry["content"] for entry in table.values()}
    unlisted = [text for text in dict.fromkeys(special.values()) if text not in listed]
    for text in unlisted:
        # `tokenizers` would give it a new id, for which the text encoder has no embedding.
        if bpe.token_to_id(text) is None:
            raise damaged(
                folder,
                f"{folder}: the special token {text!r} is not in the vocabulary",
                component=folder.name,
            )
    flags = _flags(config, special)
    with _translated(folder / "special_tokens_map.json"):
        bpe.add_special_tokens([AddedToken(text, special=True, **flags[text]) for text in unlisted])
    for index, entry in sorted(table.items()):
        with _translated(folder / "tokenizer_config.json"):
            bpe.add_tokens([AddedToken(**entry)])
        if bpe.token_to_id(entry["content"]) != index:
            raise UnsupportedModelError.advised(
                f"{folder}: the added token {entry['content']!r} does not get its id {index}",
                "export the checkpoint with sdrt export",
                path=folder,
                component=folder.name,
            )


def _flags(config: Mapping[str, Any], special: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return how each special token is found in a text. The config may say so; else CLIPTokenizer's rules hold.

    By these, the start and the end token are found in the normalised text, so in capitals too, but not the padding.
    """
    flags: dict[str, dict[str, Any]] = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        found = config.get(key)
        known = {"normalized": key != "pad_token"}
        if isinstance(found, dict):
            known |= {name: found[name] for name in _FLAGS if name in found}
        flags.setdefault(special[key], known)
    return flags


def _added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Read transformers' table of added tokens: id → the token's `content` and how to find it in a text."""
    table = config.get("added_tokens_decoder") or _older_table(folder)
    is_table = isinstance(table, dict) and all(
        index.isascii() and index.isdigit() and len(index) < 10 and isinstance(entry, dict)
        for index, entry in table.items()
    )
    if not is_table or not all(isinstance(entry.get("content"), str) for entry in table.values()):
        raise wrong_key(
            folder, "added_tokens_decoder", table, "ids and tokens", path=folder, component=folder.name
        )
    return {int(index): dict(entry) for index, entry in table.items()}


def _older_table(folder: Path) -> dict[str, Any]:
    """The table in the form of today, of the file in which transformers before 4.34 kept added tokens."""
    return {
        str(index): {"content": text} for text, index in _read_optional(folder / "added_tokens.json").items()
    }


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path, path.parent.name, remedy=_AGAIN)
    if not vocabulary or not all(type(i) is int and 0 <= i < 2**31 for i in vocabulary.values()):
        raise damaged(
            path,
            f"{path} is not a valid vocabulary, expected tokens and their ids",
            component=path.parent.name,
        )
    return vocabulary


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").strip().split("\n")[_MERGES]
    except FileNotFoundError:
        raise missing(path, path.parent.name) from None
    except UnicodeDecodeError:
        raise damaged(path, f"{path} is not UTF-8 text", component=path.parent.name) from None
    except OSError as error:
        raise unreadable(path, error) from error
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    if not all(len(pair) == 2 for pair in pairs):
        raise damaged(path, f"{path}: expected two tokens per line", component=path.parent.name)
    return [(pair[0], pair[1]) for pair in pairs]
