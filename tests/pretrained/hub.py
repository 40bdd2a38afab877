"""A cache of the Hugging Face Hub as huggingface_hub lays it out, made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPO = "acme/tiny-1.5"


def commit_of(source: Path) -> str:
    digest = hashlib.sha1()  # as git names commits
    for file in sorted(source.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def publish(cache: Path, source: Path, *refs: str, repo: str = REPO) -> str:
    """Put the files of a folder into the cache as a commit, and move ``refs`` (main by default) there."""
    folder, commit = cache / f"models--{repo.replace('/', '--')}", commit_of(source)
    snapshot = folder / "snapshots" / commit
    for each in (folder / "blobs", snapshot, folder / "refs"):
        each.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../../blobs") / blob.name)
    for ref in refs or ("main",):
        (folder / "refs" / ref).write_text(commit)
    return commit


@contextmanager
def offline(cache: Path) -> Iterator[None]:
    """As HF_HUB_CACHE and HF_HUB_OFFLINE=1 do, in a process that has read them already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield
