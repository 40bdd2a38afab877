"""Labels to weights: the table that turns an edit into a training signal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from errata.types import Label

__all__ = ["check_row_weights", "check_weights", "token_weights"]

_LARGEST = 1_000_000
"""Weights stand beside others near 1, and the squares of what they multiply must fit into single precision."""


def check_weights(weights: Iterable[object], *, original: bool) -> None:
    """Insist that weights which somebody gave can be trained on.

    Args:
        weights: of one side.
        original: whether it is the original's, where weights are sizes.

    Raises:
        ValueError: one is no number, larger in size than a million, or below zero on the original side.
    """
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= _LARGEST:
            raise ValueError(
                f"weight {weight!r} is no number of at most {_LARGEST:,} in size; give one near 1, or 0 where nothing "
                "is to be learned"
            )
        if original and weight < 0:
            raise ValueError(
                f"weight {weight!r} is below zero: on the original side it is the size of the push away, which the "
                "loss itself subtracts; give it without its sign"
            )


def check_row_weights(weights: Mapping[str, float] | None) -> Mapping[str, float]:
    """The weights of rows by their ids, none if None, once they can be trained on.

    Raises:
        ValueError: one is no number of 0 to a million; it names the row.
    """
    for row, weight in (weights or {}).items():
        try:
            check_weights([weight], original=True)
        except ValueError:
            raise ValueError(
                f"row_weights: the weight {weight!r} of row {row!r} is no number from 0 to {_LARGEST:,}; give one near "
                "1, or 0 to leave the row out"
            ) from None
    return weights or {}


def token_weights(
    labels: Sequence[int],
    *,
    kept: float,
    inserted: float,
    deleted: float,
    substituted: float,
    omission: float,
    end: float | None,
    ended: bool,
) -> tuple[float, ...]:
    """Give every response token of one side the weight of its label.

    FIGA (Guo et al., the released signals): on the edited side ``inserted = substituted = end = 1`` (its alpha) and
    ``kept = 0`` (its gamma); on the original side ``deleted = substituted = 0.5`` (its beta), ``kept = end = 0``.
    IGNORED tokens weigh nothing.

    Args:
        labels: one ``Label`` for each response token, end of sequence included.
        kept: the weight of KEPT.
        inserted: the weight of INSERTED.
        deleted: the weight of DELETED.
        substituted: the weight of SUBSTITUTED.
        omission: the weight of OMISSION.
        end: the weight of an end of sequence that was KEPT; None leaves it to its label.
        ended: whether the last token is the end of sequence; without it ``end`` weighs nothing.

    Raises:
        ValueError: a label that is none of ``Label``.

    >>> token_weights((0, 1, 3, 0), kept=0.0, inserted=1.0, deleted=0.0, substituted=1.0,
    ...     omission=0.0, end=1.0, ended=True)
    (0.0, 1.0, 1.0, 1.0)
    """
    names = np.asarray(labels, dtype=np.int64)
    if names.size and not 0 <= names.min() <= names.max() < len(Label):
        raise ValueError(f"labels run from 0 to {len(Label) - 1}, and these hold {set(names.tolist())}; label again")
    table = np.zeros(len(Label))
    table[[Label.KEPT, Label.INSERTED, Label.DELETED, Label.SUBSTITUTED]] = kept, inserted, deleted, substituted
    table[Label.OMISSION] = omission
    weights = table[names]
    if ended and end is not None and names[-1] == Label.KEPT:
        weights[-1] = end
    return tuple(weights.tolist())
