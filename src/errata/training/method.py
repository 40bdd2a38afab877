"""A way to train on files is an object: ``run_offline`` trains it, the doctor checks it, the view colours its weights.

A new one is one file and one line in ``errata.tuning.METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from accelerate.state import PartialState
from torch import Tensor, nn

from errata.data import Encoder, LengthCounts, demonstrations
from errata.labels import LabelRules, check_row_weights, label_all, label_rows, sides_of
from errata.models import LayoutKind, check_ids, choose_layout, identity, load_policy, read_card, settle, tree_size
from errata.runs import RunFolder, fingerprint_of, writes_out
from errata.training.config import OfflineConfig, StepLoss
from errata.training.ends import trained_ends
from errata.training.evaluation import NOBODY, Watch
from errata.training.heldout import HeldOut, heldout_card, heldout_ids, watch_ids
from errata.training.loop import fit
from errata.training.reference import Reference, Referenced, collate_referenced, with_reference
from errata.types import Correction, Encoded, TokenLabels

__all__ = ["OfflineMethod", "Prepared", "Reads", "Streams", "Supervision", "run_offline", "signed_weights"]

Row = TypeVar("Row")
Reads = Literal["demonstrations", "pairs", "labels"]
"""Responses to imitate; a better and a worse response; or corrections, labelled token by token."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The signed weights of the response tokens of both sides; None for a side that is not trained on."""

    original: tuple[float, ...] | None
    edited: tuple[float, ...]

    @property
    def weighs(self) -> bool:
        """Whether any token has a weight."""
        return any(self.edited) or any(self.original or ())


def signed_weights(batch: Mapping[str, Any], rows: int) -> Tensor:
    """Weights of the tokens of a batch, those of the second side below 0: ``weight_SK``, or 1 on all that is read.

    Args:
        batch: what a method's ``collate`` made.
        rows: how many rows it has.
    """
    weight_SK: Tensor = batch.get("weight_SK", batch["layout"].wanted_SK.float()).clone()
    weight_SK[rows:] *= -1
    return weight_SK


@dataclass(frozen=True, kw_only=True, eq=False)
class Supervision(Generic[Row]):
    """What a loss sees of labelled corrections. The doctor follows it to the end."""

    name: str
    config: type[Any]
    """Its settings."""
    reads: Reads
    weights: Callable[[TokenLabels, Any], Streams]
    """Labels and settings to what the loss shall see of either side: above 0 imitated, below 0 unlearned."""
    heldout: Callable[[TokenLabels, Any], Row]
    """Labels and settings to a row as ``collate`` takes it; so held-out corrections are evaluated."""
    collate: Callable[..., dict[str, Any]]
    """``(rows, *, encoder, kind)`` to what the loss is given: ``layout`` and tensors, on the layout's sequences."""
    signed: Callable[[Mapping[str, Any], int], Tensor] = signed_weights
    """A batch and its number of rows to the weights in it, [S, K], as ``weights`` says them."""
    read_before: int = 1
    """Columns before a token at which it is read: 1 for a language model, 0 for a reward."""
    teaches_end: bool = True
    """Whether a run in which no end of sequence has a weight is a mistake."""
    unlearns: bool = False
    """Whether weights below 0 push tokens away one by one, so that more of them than above 0 is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Generic[Row]):
    """Rows as a method trains on them."""

    rows: Sequence[Row]
    """Those with a gradient."""
    sides: Sequence[tuple[str, Encoded]]
    """Every text and the id of its row, to see that the model has the ids."""
    data: Sequence[Any]
    """All that decides what is learned of the rows, plain values: the fingerprint of the run holds it."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Counts, of what was left out too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfflineMethod(Supervision[Row]):
    """A way to tune a policy on files: a line of ``errata.tuning.METHODS``."""

    summary: str
    """One line for ``errata --help``."""
    about: str
    """What ``errata tune NAME --help`` says first."""
    rows: Callable[..., Prepared[Row]]
    """``(source, encoder, config, *, row_weights, counts)`` to rows. Raises ValueError or TypeError for bad ones."""
    loss: Callable[[nn.Module, Any, Any], StepLoss]
    """Model, batch and settings to a sum and a count."""
    texts: Callable[[Row], tuple[Encoded, ...]]
    """The texts of a row, which a layout may share the beginning of."""
    end: Callable[[Row], tuple[Encoded, float]]
    """The text of a row that is imitated, and the weight of its last token."""
    reference: Callable[[Any], Reference] = lambda config: "none"
    """Settings to what the loss is given of the start model, computed once."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings under a name, for ``--preset``; also those of ``LabelRules``."""
    learn: Mapping[str, Any] = field(default_factory=dict)
    """What ``errata learn`` sets of the method's own settings, where it is not the default of ``config``."""

    @property
    def own_settings(self) -> frozenset[str]:
        """The names of the settings that no other method has."""
        common = {setting.name for setting in fields(OfflineConfig)}
        return frozenset(setting.name for setting in fields(self.config)) - common

    def source(
        self, corrections: Sequence[Correction], encoder: Encoder, rules: LabelRules, counts: LengthCounts
    ) -> Sequence[Any]:
        """Corrections as rows of the kind that the method reads; ``counts`` gets what labels say of their lengths."""
        if self.reads == "labels":
            return list(label_all(corrections, encoder, rules, counts=counts))
        return demonstrations(corrections) if self.reads == "demonstrations" else corrections


@writes_out
def run_offline(
    method: OfflineMethod[Any],
    model: Path | str,
    source: Iterable[Any],
    encoder: Encoder,
    config: OfflineConfig,
    out: Path | str,
    *,
    heldout: Iterable[TokenLabels] | None = None,
    row_weights: Mapping[str, float] | None = None,
    counts: LengthCounts | None = None,
    watch: Watch = NOBODY,
) -> dict[str, Any]:
    """Train ``model`` by ``method`` on the rows of ``source``, and write it to ``out``.

    Args:
        method: which.
        model: whatever ``find_model`` takes.
        source: rows of the kind that ``method.reads``.
        encoder: text to ids.
        config: settings, of the class ``method.config``.
        out: the folder of the tuned model.
        heldout: evaluated during training, and never learned from.
        row_weights: factors by the id of a row; 1 where none is given.
        counts: what labelling said of rows that were too long; if not given, what the labels themselves show.
        watch: looks on.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), none is left, a weight is no number from 0 to a
            million; or as ``fit``.
        TypeError: ``source`` or ``heldout`` are rows of another kind.
    """
    out, weights = Path(out), check_row_weights(row_weights)
    config, noted = settle(config, model)
    heldout = None if heldout is None else label_rows(heldout, "heldout")
    prepared = method.rows(source, encoder, config, row_weights=weights, counts=counts)
    told = fingerprint_of(method.name, identity(model), config, prepared.data, *heldout_ids(heldout), *watch_ids(watch))
    card: dict[str, Any] = {
        "stage": method.name,
        "rows": len(prepared.rows),
        **prepared.card,
        **heldout_card(heldout),
        **noted,
        "fingerprint": told,
    }
    folder = RunFolder(out, told)
    if folder.is_finished():
        return read_card(out)
    policy = load_policy(model, config)
    check_ids(policy, [*prepared.sides, *sides_of(heldout)])
    kind, card["layout"] = choose_layout(policy, config.layout)
    train = _Training(method, policy, encoder, config, kind, folder)
    evaluate = None
    if heldout is not None:
        rows = train.rows([method.heldout(row, config) for row in heldout], "heldout_reference")
        evaluate = HeldOut(heldout, model, encoder, config).evaluation(rows, train.collate, train.loss)
    size = tree_size(method.texts(row) for row in prepared.rows)
    return fit(
        policy,
        train.rows(prepared.rows, "reference"),
        collate=train.collate,
        loss=train.loss,
        evaluate=watch.beside(evaluate),
        told=watch.step,
        length=lambda row: size(train.texts(row)),
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
        ends=trained_ends(map(method.end, prepared.rows)),
    )


class _Training:
    """A method, with a policy and settings: what ``fit`` is given."""

    def __init__(
        self,
        method: OfflineMethod[Any],
        policy: nn.Module,
        encoder: Encoder,
        config: OfflineConfig,
        kind: LayoutKind,
        folder: RunFolder,
    ) -> None:
        self.method, self.policy, self.config, self.folder = method, policy, config, folder
        self.of_rows = partial(method.collate, encoder=encoder, kind=kind)
        self.reference = method.reference(config)

    def rows(self, rows: Sequence[Any], name: str) -> Sequence[Any]:
        """With what the start model says of them, where the loss asks for it; kept beside the checkpoints."""
        if self.reference == "none" or not rows:
            return rows
        with PartialState().main_process_first():  # before anybody reads what a run of other settings left
            self.folder.begin()
        path = self.folder.work / f"{name}.npz"
        return with_reference(self.policy, rows, self.of_rows, self.config, self.reference, path)

    def collate(self, rows: list[Any]) -> dict[str, Any]:
        """A batch."""
        return (
            self.of_rows(rows) if self.reference == "none" else collate_referenced(rows, self.of_rows, self.reference)
        )

    def loss(self, model: nn.Module, batch: Any) -> StepLoss:
        """The loss of a batch."""
        return self.method.loss(model, batch, self.config)

    def texts(self, row: Any) -> tuple[Encoded, ...]:
        """The texts of a row."""
        return self.method.texts(row.row if isinstance(row, Referenced) else row)
