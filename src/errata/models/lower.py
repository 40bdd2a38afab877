"""What the frozen lower layers of a model give, computed once for each beginning of a sequence and kept on disk.

With an adapter on the uppermost layers only, the layers below give the same in every pass. What they give of a token
depends on the tokens before it and itself, so it is kept by those: under whatever batch it comes back, its numbers are
there, and rows that begin alike share them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.models.tree import Tree

__all__ = ["KeptLayers", "first_learning", "forget", "kept_of", "layers_of", "lower_kept", "prefix_keys"]

_LOG = logging.getLogger(__name__)


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The layers of a model, from the lowest, and their name: its longest list of modules."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda one: len(one[1]), default=None)


def first_learning(model: nn.Module) -> int:
    """The number of the lowest layer in which anything learns, below which nothing does; 0 if there is none."""
    found = layers_of(model)
    if found is None:
        return 0
    name, layers = found
    learning = [learner for learner, parameter in model.named_parameters() if parameter.requires_grad]
    numbers = [int(one.removeprefix(f"{name}.").split(".")[0]) for one in learning if one.startswith(f"{name}.")]
    first = min(numbers, default=len(layers))
    # What learns outside the layers must stand above them: the heads that are trained beside an adapter.
    embeddings: Any = model
    below = list(embeddings.get_input_embeddings().parameters())
    return 0 if any(parameter.requires_grad for parameter in below) else min(first, len(layers) - 1)


class KeptLayers:
    """The outputs of the lowest ``count`` layers in a file of at most ``most_bytes``, which vanishes with the process.

    What there is no room for is computed anew each time, with the same result.
    """

    def __init__(self, layers: Sequence[nn.Module], count: int, folder: Path, most_bytes: int) -> None:
        self.layers, self.most_bytes = layers[:count], most_bytes
        self.file = TemporaryFile(dir=folder, prefix="lower-", buffering=0)  # noqa: SIM115 (kept open)
        self.places: dict[bytes, int] = {}
        self.full = False
        self.as_tuple = False
        self.width, self.dtype = 0, torch.float32

    @contextmanager
    def used(self, ids: Sequence[int], tree: Tree) -> Iterator[None]:
        """As long as the block lasts the layers give what was kept of these tokens; if some are new, it is kept."""
        keys = prefix_keys(ids, tree)
        places = [self.places.get(key) for key in keys]
        missing = [column for column, place in enumerate(places) if place is None]
        top = self.layers[-1]
        if not missing:
            known = self._read([place for place in places if place is not None])
            for layer in self.layers:
                vars(layer)["forward"] = self._giving(None if layer is not top else known)
            try:
                yield
            finally:
                for layer in self.layers:
                    del vars(layer)["forward"]
            return
        given: list[Tensor] = []

        def note(_: nn.Module, __: Any, output: Any) -> None:
            self.as_tuple = isinstance(output, tuple)
            given.append((output[0] if self.as_tuple else output).detach()[0])

        handle = top.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()
        self._keep([keys[column] for column in missing], given[0][missing])

    def _giving(self, known_CD: Tensor | None) -> Any:
        def forward(*arguments: Any, **named: Any) -> Any:
            # Layers under the topmost one hand on what they are given: nobody looks at it.
            hidden_1CD = named.get("hidden_states", arguments[0] if arguments else None)
            hidden_1CD = hidden_1CD if known_CD is None else known_CD[None]
            return (hidden_1CD,) if self.as_tuple else hidden_1CD

        return forward

    def _keep(self, keys: Sequence[bytes], hidden_MD: Float[Tensor, "M D"]) -> None:
        if self.full:
            return
        self.width, self.dtype = hidden_MD.shape[1] * hidden_MD.element_size(), hidden_MD.dtype
        start = len(self.places)
        room = self.most_bytes // self.width - start
        rows = hidden_MD[:room].contiguous().cpu().view(torch.uint8).numpy()
        reason = f"it has room for {self.most_bytes / 1e9:g} GB" if len(rows) < len(keys) else ""
        try:
            self.file.seek(start * self.width)
            written = self.file.write(rows.tobytes()) // self.width
        except OSError as error:  # no space is left on the disk
            written, reason = 0, str(error)
        self.places |= {key: start + k for k, key in enumerate(keys[:written])}
        if reason or written < len(keys):
            self.full = True
            _LOG.warning(
                "what the lower layers give is kept of %d tokens and computed anew for the others, slower with the "
                "same result: %s; raise --lora-keep-gb",
                len(self.places),
                reason or "the disk is full",
            )

    def _read(self, places: list[int]) -> Float[Tensor, "C D"]:
        rows = np.memmap(self.file, np.uint8, "r", shape=(len(self.places), self.width))
        return torch.from_numpy(rows[places]).view(self.dtype)


def prefix_keys(ids: Sequence[int], tree: Tree) -> list[bytes]:
    """A name for each column: of its token and all that stand before it in its sequence."""
    keys: list[bytes] = []
    for node in tree.nodes:
        key = keys[tree.nodes[node.parent].stop - 1] if node.parent >= 0 else b""
        for token in ids[node.start : node.stop]:
            key = blake2b(key + int(token).to_bytes(4, "little"), digest_size=16).digest()
            keys.append(key)
    return keys


_KEPT: WeakKeyDictionary[nn.Module, KeptLayers] = WeakKeyDictionary()


@contextmanager
def lower_kept(model: nn.Module, folder: Path, most_bytes: int) -> Iterator[KeptLayers | None]:
    """As long as the block lasts, keep what the layers give that lie below all that learns, for trees.

    Gives None where no layer does. Whether a model's upper layers need nothing else of the lower ones is for the caller
    to try out.
    """
    count, found = first_learning(model), layers_of(model)
    if not count or found is None or most_bytes <= 0:
        yield None
        return
    kept = _KEPT[model] = KeptLayers(list(found[1]), count, folder, most_bytes)
    try:
        yield kept
    finally:
        _KEPT.pop(model, None)
        kept.file.close()


def forget(model: nn.Module) -> None:
    """Keep nothing of this model any more."""
    _KEPT.pop(model, None)


def kept_of(model: nn.Module) -> KeptLayers | None:
    """What ``lower_kept`` keeps of this model now."""
    return _KEPT.get(model)
