"""What models write and think: drafts of rows, and log-probabilities of what people sent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from errata.data import LengthCounts
from errata.data.rows import write_lines
from errata.labels import label_all
from errata.models import Sampling
from errata.runs import write_json
from errata.workflows.edit_points import choices_at
from errata.workflows.learning.context import Run, first_by_lot
from errata.workflows.measure import text_loss, token_logprobs_by_label, write_drafts

DRAFTS_AT_ONCE = 32


def draft(run: Run, path: Path) -> None:
    """Drafts of one model: ``heldout/MODEL.DECODING.jsonl``."""
    name, _, decoding = path.stem.partition(".")
    rows = run.rows("heldout") + run.rows("heldout_accepted")
    sampling = Sampling(
        max_new_tokens=run.config.max_new_tokens,
        temperature=run.details.temperature if decoding == "sampled" else 0.0,
        seed=run.details.seed,
    )
    drafts = write_drafts(
        run.loaded(name), rows, run.encoder, sampling, batch_size=DRAFTS_AT_ONCE, what=name, told=run.progress
    )
    write_lines(
        path, ({"id": one.id, "response": one.text, "ids": one.response_ids, "ended": one.ended} for one in drafts)
    )


def read_along(run: Run, path: Path) -> None:
    """What a model would write along what was sent: ``selection/MODEL.jsonl`` or ``heldout/MODEL.points.jsonl``."""
    name = path.stem.partition(".")[0]
    found = choices_at(run.loaded(name), run.points(path.parent.name), run.encoder, what=name, told=run.progress)
    write_lines(path, map(asdict, found))


def read_trained(run: Run, path: Path) -> None:
    """The same of rows that are trained on, up to four times as many as judge: ``heldout/old.trained.jsonl``."""
    points = run.points_of(first_by_lot(run.rows("train"), 4 * len(run.rows("heldout"))))
    found = choices_at(run.loaded("old"), points, run.encoder, what="old", told=run.progress)
    write_lines(path, map(asdict, found))


def score(run: Run, path: Path) -> None:
    """Log-probabilities of the held-out rows' tokens."""
    model, size = run.loaded(path.stem), run.details.micro_batch_size
    labels = list(label_all(run.rows("heldout"), run.encoder, counts=LengthCounts(), on_error=lambda *_: None))
    tokens = token_logprobs_by_label(model, labels, run.encoder, batch_size=size, what=path.stem, told=run.progress)
    write_json(path, {"tokens": asdict(tokens), "rows": len(labels)})


def read_general(run: Run, path: Path) -> None:
    """The loss on the general text: ``general/MODEL.json``."""
    assert run.general is not None
    loss, count = text_loss(
        run.loaded(path.stem),
        run.general,
        run.encoder,
        window=min(512, run.encoder.max_length or 512),
        max_tokens=run.details.general_tokens,
        batch_size=run.details.micro_batch_size,
        what=path.stem,
        told=run.progress,
    )
    write_json(path, {"loss": loss, "tokens": count})
