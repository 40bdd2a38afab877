"""What a model reference is: a local folder, or ``owner/name`` or ``owner/name@revision`` of the Hugging Face Hub.

Whatever takes a model asks ``find_model``; a Hub id becomes the folder of one commit in the local cache, so that all
that reads models reads local folders. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["ModelFolder", "StoredTensor", "find_model", "identity", "is_hub_id"]

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_TEXTS = ("*.json", "*.jinja", "*.txt", "*.model")
_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors")
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
        one, index = self.path / "model.safetensors", self.path / "model.safetensors.index.json"
        if one.exists():
            return (one,)
        if not index.exists():
            others = sorted(
                file.name for file in self.path.glob("*") if file.suffix in (".bin", ".gguf", ".pt", ".pth")
            )
            said = f"; errata does not read {others[0]}, convert it to safetensors" if others else ""
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

    Args:
        reference: a local folder, ``owner/name`` or ``owner/name@revision``. A folder that is there wins.
        weights: fetch its weights, too, not just configuration and tokenizer.

    Raises:
        ValueError: it is neither; the Hub has no such model; or it cannot be reached, and the cache does not have it.
    """
    if Path(reference).is_dir():
        return ModelFolder(str(reference), Path(reference))
    found = _HUB_ID.fullmatch(str(reference))
    if Path(reference).exists() or found is None:
        what = "a file is no model folder:" if Path(reference).exists() else "there is no model folder"
        raise ValueError(f"{what} {reference}; give a local folder, or owner/name or owner/name@revision of the hub")
    from huggingface_hub import snapshot_download

    repo, revision = found["repo"], found["revision"]
    try:
        path = snapshot_download(
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
    return ModelFolder(str(reference), Path(path), repo, revision, Path(path).name)


def _download(repo: str, revision: str | None) -> str:
    return f"hf download {repo} --revision {revision or 'main'}"


def identity(reference: Path | str) -> list[Any]:
    """What tells a model from another: its name, and the commit of a Hub id or a digest of the files of a folder.

    The digest is of configuration, tokenizer and weights, by name and content. A weight file above 256 MiB is read
    in part: its header, and 1,024 blocks of 16 KiB evenly over it; its size and time count, too.

    Raises:
        ValueError: as ``find_model``.
    """
    model = find_model(reference)
    if model.repo is not None:
        return [model.repo, model.commit]
    digest = hashlib.sha256()
    for file in sorted(model.path.iterdir()):
        if file.is_file() and file.name not in _OURS and any(file.match(p) for p in (*_TEXTS, "*.safetensors")):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            for part in _content(file):
                digest.update(part)
    return [str(reference), digest.hexdigest()[:16]]


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
