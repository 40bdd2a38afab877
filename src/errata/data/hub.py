"""Data sets of the Hugging Face Hub: ``owner/name``, ``owner/name@revision``, ``owner/name@revision:split``.

Rows stream where the Hub can be reached; offline they come from its cache. No code of a data set is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HubData", "hub_data", "identity_of_data", "open_data"]

_REFERENCE = re.compile(
    r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?:(?P<config>[\w.-]+)/)?(?P<split>[\w.-]+))?"
)
_FILES = {".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".gz", ".txt"}


class HubData(NamedTuple):
    """A data set of the Hub, as it was named."""

    repo: str
    revision: str | None
    """A branch, tag or commit."""
    config: str | None
    """Which of its parts (Hugging Face's configurations, or subsets)."""
    split: str | None


def hub_data(path: Path) -> HubData | None:
    """What a path names on the Hub; None where it is here, or reads as a file.

    >>> hub_data(Path("acme/edits@v2:test"))
    HubData(repo='acme/edits', revision='v2', config=None, split='test')
    >>> hub_data(Path("acme/edits:german/train")).config
    'german'
    >>> hub_data(Path("acme/edits.jsonl"))
    """
    found = _REFERENCE.fullmatch(str(path))
    if found is None or path.suffix.lower() in _FILES or path.exists():
        return None
    return HubData(*(found[name] for name in HubData._fields))


def identity_of_data(path: Path) -> list[Any] | None:
    """What tells a data set of the Hub from another: its commit and what of it is read; None for a file.

    Raises:
        ValueError: the Hub has no such data set, or cannot be reached, and the cache does not have it.
    """
    named = hub_data(path)
    return None if named is None else [named.repo, _find(named)[1], named.config, named.split]


def open_data(named: HubData) -> tuple[Iterator[Mapping[str, Any]], str]:
    """The rows of a split, and where they come from in words.

    Raises:
        ValueError: ``datasets`` is not installed; as ``identity_of_data``; the data set cannot be read; or it has
            several splits or configurations, and none is named.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"there is no file {named.repo} here, and data sets of the Hub need datasets: run `pip install "
            "'errata[datasets]'`"
        ) from error
    folder, commit = _find(named)
    where, more = (named.repo, {"revision": commit}) if folder is None else (str(folder), {})
    try:
        splits: Any = datasets.load_dataset(where, name=named.config, streaming=True, **more)
    except Exception as error:  # of the network, of builders, of missing configurations: no common class
        reason = " ".join(str(error).split())[:400]
        raise ValueError(
            f"the data set {named.repo} cannot be read ({reason}); where it has configurations, name one and a split: "
            f"{named.repo}:CONFIGURATION/SPLIT"
        ) from error
    if named.split not in (None, *splits) or (named.split is None and len(splits) > 1):
        raise ValueError(
            f"{named.repo} has the splits {', '.join(splits)}; name one: {named.repo}:{next(iter(splits))}"
        )
    split = named.split or next(iter(splits))
    return iter(splits[split]), f"split {split} of {named.repo} on the Hub, commit {commit[:12]}"


def _find(named: HubData) -> tuple[Path | None, str]:
    """The folder in the cache, or None where the Hub can be asked; and the commit."""
    from huggingface_hub import HfApi, constants, snapshot_download

    repo, revision = named.repo, named.revision
    reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            return None, str(HfApi().dataset_info(repo, revision=revision).sha)
        except Exception as error:  # of the network, of the Hub: no common class
            reason = " ".join(str(error).split())[:300]
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception as error:
        raise ValueError(
            f"there is no file or folder {repo} here, and the data set {repo} of the Hugging Face Hub is not in its "
            f"cache, and could not be asked for ({reason}); run `hf download --repo-type dataset {repo} --revision "
            f"{revision or 'main'}` where the Hub can be reached, or give a file"
        ) from error
    return folder, folder.name
