"""What a model reference is: a local folder, ``owner/name`` or ``owner/name@revision`` of the Hub, or a GGUF file.

Whatever takes a model asks ``find_model``; a Hub id becomes the folder of one commit in the local cache, a GGUF file
the folder that it was converted to, so that all that reads models reads local folders. A folder may hold a LoRA adapter
in the place of a model: configuration and weights are then its base's. Only the conversion needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "ModelFolder", "StoredTensor", "find_model", "identity", "is_hub_id"]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""What peft calls the two files of an adapter."""

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HUB_FILE = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)/(?P<file>[\w./ -]+\.gguf)(?:@(?P<revision>[\w./-]+))?")
_TEXTS = ("*.json", "*.jinja", "*.txt", "*.model")
_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors", ADAPTER_WEIGHTS)
_OURS = ("errata.json",)  # says how a model was made; what it is stands in the other files
_WHOLE = 1 << 28  # bytes; larger files of weights are read in part for their digest
_BLOCK, _BLOCKS = 1 << 14, 1024


class StoredTensor(NamedTuple):
    """What a safetensors file says of one tensor."""

    dtype: str
    """As safetensors names it: F32, BF16, F16, F64, I64, F8_E4M3, …"""
    shape: tuple[int, ...]
    file: Path


@dataclass(frozen=True)
class ModelFolder:
    """Where a model's files are."""

    reference: str
    """As it was given."""
    path: Path
    repo: str | None = None
    """``owner/name`` on the Hub; None for a local folder."""
    revision: str | None = None
    """The branch, tag or commit that was asked for; None: the default branch."""
    commit: str | None = None
    """The commit that it was found to be."""
    base: ModelFolder | None = None
    """Of an adapter: the model that it is put into."""
    mark: str | None = None
    """What tells it from another, where that is not what its files hold: of a GGUF file its digest."""

    @property
    def name(self) -> str:
        """What to call it: ``owner/name``, or the last part of its path."""
        path = Path(self.reference)
        return self.repo or (path.stem if self.mark else path.resolve().name)

    @property
    def whole(self) -> ModelFolder:
        """Where configuration and weights are: of an adapter its base, else this."""
        return self.base or self

    @property
    def tokenizer_path(self) -> Path:
        """Where the tokenizer is: beside an adapter, or beside its base."""
        own = any((self.path / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
        return self.path if own else self.whole.path

    @cached_property
    def quantization(self) -> Mapping[str, Any]:
        """How config.json says that the weights are quantized (``quant_method`` and more); empty if they are not.

        A configuration that is damaged or not there says nothing; whoever reads it says what is wrong with it.
        """
        try:
            found = json.loads((self.whole.path / "config.json").read_text(encoding="utf-8"))
            how = found.get("quantization_config") or found.get("text_config", {}).get("quantization_config") or {}
            return {"quant_method": "unknown", **how} if how else {}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    @property
    def pinned(self) -> str:
        """A reference to exactly this: of a Hub id with its commit."""
        return self.reference if self.repo is None else f"{self.repo}@{self.commit}"

    @property
    def remedy(self) -> str:
        """What to do about a file that is damaged or not there."""
        if self.repo is None:
            return "save or copy the model there again"
        return f"run `{_download(self.repo, self.revision)}` where the Hub can be reached"

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files that transformers would read.

        Raises:
            ValueError: there are none, or the index names one that is not there.
        """
        if self.base is not None:
            return self.base.weight_files
        one, index = self.path / "model.safetensors", self.path / "model.safetensors.index.json"
        if one.exists():
            return (one,)
        if not index.exists():
            others = sorted(
                file.name for file in self.path.glob("*") if file.suffix in (".bin", ".gguf", ".pt", ".pth")
            )
            said = f"; errata does not read {others[0]}, convert it to safetensors" if others else ""
            if others and others[0].endswith(".gguf"):
                said = f"; give the file itself, {self.path / others[0]}"
            raise ValueError(f"{self.path} has no model.safetensors{said or f'; {self.remedy}'}")
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            files = tuple(self.path / name for name in names)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{index} is no index of safetensors files ({error!r}); {self.remedy}") from error
        if lost := [file.name for file in files if not file.exists()]:
            raise ValueError(f"{index} names {lost[0]}, which is not there; {self.remedy}")
        return files

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """What the headers of the weight files say, by tensor.

        Raises:
            ValueError: as ``weight_files``; or a file is no whole safetensors file.
        """
        return {name: found for file in self.weight_files for name, found in read_header(file, self.remedy).items()}


def read_header(file: Path, remedy: str) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, without reading them.

    Raises:
        ValueError: it is none, or cut off.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
            return {name: StoredTensor(one.get_dtype(), tuple(one.get_shape()), file) for name, one in slices.items()}
    except Exception as error:  # safetensors' own error is an Exception, an empty file's another
        raise ValueError(f"{file} is no whole safetensors file ({error}): cut off or damaged; {remedy}") from error


def is_hub_id(reference: Path | str) -> bool:
    """Whether it reads as ``owner/name`` or ``owner/name@revision`` and no file or folder of that name is here."""
    return not Path(reference).exists() and _HUB_ID.fullmatch(str(reference)) is not None


def find_model(reference: Path | str, *, weights: bool = False) -> ModelFolder:
    """Where the files of a model are; those of a Hub id are fetched, or taken from the local cache where it is offline.

    A GGUF file is converted once, into a folder under ``ERRATA_CACHE`` (or the user's cache) that its content names.

    Args:
        reference: a local folder, a GGUF file, ``owner/name``, ``owner/name@revision`` or ``owner/name/file.gguf``.
            What is there under this name wins. A folder may be a LoRA adapter's: its base is found, too.
        weights: fetch its weights, too, not just configuration and tokenizer.

    Raises:
        ValueError: it is none of these; the Hub has no such model; or it cannot be reached, and the cache does not have
            it; an adapter's base is not there; a GGUF file cannot be read.
    """
    path = Path(reference)
    if path.is_dir():
        return _with_base(ModelFolder(str(reference), path), weights)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _converted(path, ModelFolder(str(reference), path))
    if (one := _HUB_FILE.fullmatch(str(reference))) is not None and not path.exists():
        return _converted(*_fetch_file(str(reference), one["repo"], one["file"], one["revision"]))
    found = _HUB_ID.fullmatch(str(reference))
    if path.exists() or found is None:
        what = "a file is no model folder:" if path.exists() else "there is no model folder"
        raise ValueError(
            f"{what} {reference}; give a local folder, a GGUF file, or owner/name or owner/name@revision of the hub"
        )
    from huggingface_hub import snapshot_download

    repo, revision = found["repo"], found["revision"]
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_TEXTS, *(_WEIGHTS if weights else ())],
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # of the network, of the Hub, of the cache: no common class
        raise ValueError(
            f"there is no folder {reference} here, and of {repo}{f' at revision {revision}' if revision else ''} "
            f"config.json{', model.safetensors' if weights else ''} or a file beside it is not in the cache of the "
            f"Hugging Face Hub, which could not be asked ({' '.join(str(error).split())[:300]}); run "
            f"`{_download(repo, revision)}` where it can be reached, or give a local folder"
        ) from error
    return _with_base(ModelFolder(str(reference), Path(folder), repo, revision, Path(folder).name), weights)


def _download(repo: str, revision: str | None) -> str:
    return f"hf download {repo} --revision {revision or 'main'}"


def _with_base(found: ModelFolder, weights: bool) -> ModelFolder:
    """The folder, and of an adapter its base.

    Raises:
        ValueError: the adapter is damaged, of another kind than LoRA, or its base is not there or an adapter itself.
    """
    config = found.path / ADAPTER_CONFIG
    if not config.exists():
        return found
    if (found.path / "config.json").exists():
        # transformers would train or run both.
        raise ValueError(
            f"{found.path} holds a model (config.json) and an adapter ({ADAPTER_CONFIG}); move one of them elsewhere"
        )
    named = _read_adapter(found.path, found.remedy)
    base, revision = str(named["base_model_name_or_path"]), named.get("revision")
    inside = found.path / base
    if not Path(base).exists() and inside.is_dir():
        base = str(inside)
    elif revision and is_hub_id(base) and "@" not in base:
        base = f"{base}@{revision}"
    try:
        whole = find_model(base, weights=weights)
    except ValueError as error:
        raise ValueError(
            f"{found.reference} is an adapter, and its base {base} ({config}, base_model_name_or_path) cannot be "
            f"found: {error}; put the base there, or write in {ADAPTER_CONFIG} where it is"
        ) from error
    if whole.base is not None:
        raise ValueError(f"{found.reference} is an adapter of {base}, which is an adapter itself; merge that one first")
    return replace(found, base=whole)


def _read_adapter(folder: Path, remedy: str) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("base_model_name_or_path"), str):
            raise ValueError("it names no base_model_name_or_path")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no configuration of an adapter ({error}); {remedy}") from error
    if found.get("peft_type", "LORA") != "LORA":
        raise ValueError(f"{folder} is an adapter of the kind {found['peft_type']}; errata reads LoRA")
    return found


def _fetch_file(reference: str, repo: str, name: str, revision: str | None) -> tuple[Path, ModelFolder]:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repo, name, revision=revision))
    except Exception as error:  # of the network, of the Hub, of the cache: no common class
        raise ValueError(
            f"there is no file {reference} here, and {name} of {repo} is not in the cache of the Hugging Face Hub, "
            f"which could not be asked ({' '.join(str(error).split())[:300]}); run `hf download {repo} {name} "
            f"--revision {revision or 'main'}` where it can be reached"
        ) from error
    # The cache keeps it as snapshots/COMMIT/NAME.
    return path, ModelFolder(reference, path)


def _converted(file: Path, found: ModelFolder) -> ModelFolder:
    """The folder that a GGUF file was converted to: now, if it was not before."""
    state = file.stat()
    digest = _digest_of(file.resolve(), state.st_size, state.st_mtime_ns)
    folder = _cache() / "gguf" / digest[:32]
    if not folder.exists():
        from filelock import FileLock

        from errata.pretrained.gguf import convert_gguf

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():  # another process may have made it meanwhile
                tqdm.write(f"{file}: a GGUF file; its weights become float32, once, in {folder}", file=sys.stderr)
                convert_gguf(file, folder)
    return replace(found, path=folder, mark=digest[:16])


def _cache() -> Path:
    """Where what is made once and used again lies: ``ERRATA_CACHE``, or ``errata`` in ``XDG_CACHE_HOME``."""
    own, shared = os.environ.get("ERRATA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "errata"


@cache
def _digest_of(file: Path, size: int, changed: int) -> str:
    """SHA-256; size and time say whether it is to be read again."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def identity(reference: Path | str) -> list[Any]:
    """What tells a model from another: its name, and the commit of a Hub id or a digest of the files of a folder.

    The digest is of configuration, tokenizer and weights, by name and content. A weight file above 256 MiB is read
    in part: its header, and 1,024 blocks of 16 KiB evenly over it; its size and time count, too. That of an adapter is
    of its files and of what tells its base; that of a GGUF file of its content.

    Raises:
        ValueError: as ``find_model``.
    """
    model = find_model(reference)
    name, mark = _identity(model)
    return [name, mark if model.base is None else f"{mark} on {_identity(model.base)[1]}"]


def _identity(model: ModelFolder) -> list[Any]:
    if model.repo is not None:
        return [model.repo, model.commit]
    if model.mark is not None:
        return [model.reference, model.mark]
    digest = hashlib.sha256()
    for file in sorted(model.path.iterdir()):
        if file.is_file() and file.name not in _OURS and any(file.match(p) for p in (*_TEXTS, "*.safetensors")):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            for part in _content(file):
                digest.update(part)
    return [model.reference, digest.hexdigest()[:16]]


def _content(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        if size <= _WHOLE:
            while part := opened.read(1 << 20):
                yield part
            return
        yield str(file.stat().st_mtime_ns).encode()
        head = opened.read(8)
        yield head + opened.read(min(int.from_bytes(head, "little"), _WHOLE))
        for k in range(_BLOCKS):
            opened.seek(k * (size - _BLOCK) // (_BLOCKS - 1))
            yield opened.read(_BLOCK)
