"""What was found, from the files that the stages wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from errata.data.rows import read_lines
from errata.edits import word_distance
from errata.models import read_card
from errata.runs import Damaged, read_json
from errata.types import Correction, Rollout
from errata.workflows.edit_points import RowChoices, compare_choices, figures_of
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.learning.context import DECODINGS, Run, interval
from errata.workflows.learning.settings import LearnDetails
from errata.workflows.measure import TokenLogprobs, compare, describe, edit_costs
from errata.workflows.verdict import AnewCompared, Drafter, JudgedPairs, Limits, Measured, decide


def choices(run: Run, name: str, folder: str) -> list[RowChoices]:
    """What a stage found that read along what was sent: ``name`` of ``selection`` or ``heldout``.

    Raises:
        Damaged: the file is no such one; of a run of before there were digests.
    """
    path = run.out / folder / f"{name}.jsonl"
    try:
        return [RowChoices(**json.loads(line)) for _, line in read_lines(path)]
    except (ValueError, TypeError) as error:
        remedy = "delete it, and rerun the same command to make it again"
        raise Damaged(f"{path}: {error}; {remedy}") from error


def selection(run: Run) -> list[Candidate]:
    """How the old model and the candidates did on the rows that choose; without such rows, the candidate alone."""
    found = []
    for name in (*(("old",) if run.counts("split")["selection"] else ()), *run.arms):
        card = read_card(run.out / "candidates" / name) if name != "old" else {}
        steps = card.get("steps", 0)
        points = figures_of(choices(run, name, "selection")) if run.counts("split")["selection"] else None
        step, general = card.get("best_step", steps), general_loss(run, name)[0]
        found.append(Candidate(name=name, points=points, general=general, step=step, steps=steps))
    return found


def general_loss(run: Run, name: str) -> tuple[float | None, int | None]:
    """The loss on the general text in nats a token, and of how many tokens; None where no text was given."""
    if run.general is None:
        return None, None
    found = read_json(run.out / "general" / f"{name}.json")
    return found["loss"], found["tokens"]


def best(run: Run) -> str:
    """The candidate that would write the fewest words wrong along the rows that choose; of equals the first.

    One that forgets more of the general text than it may comes after those that do not.
    """
    found = selection(run)
    start = found[0].general or 0.0  # of the old model; alone, a candidate is compared with nobody

    def rank(one: Candidate) -> tuple[bool, float]:
        forgets = (one.general or 0.0) - start > run.details.max_general_rise + 1e-12
        return forgets, one.points.wrong if one.points else 0.0

    return min((one for one in found if one.name in run.arms), key=rank).name


def drafter(run: Run) -> Drafter:
    """Whether the old model's fresh drafts of the held-out rows are the logged ones again."""
    rows = run.rows("heldout")
    fresh = run.drafts("old.greedy", [row.id for row in rows])
    again = [is_again(row.original, one) for row, one in zip(rows, fresh, strict=True)]
    return Drafter(
        rows=len(rows),
        again=sum(again) / len(again),
        told=run.details.drafted_by,
        logged_cost=sum(word_distance(row.original, row.edited) for row in rows) / len(rows),
    )


def is_again(logged: str, fresh: Rollout) -> bool:
    """Nine words of ten are the same; of a draft that was cut, as far as both go."""
    old, new = logged.split(), fresh.text.split()
    shorter = min(len(old), len(new))
    if not fresh.ended and shorter >= _ENOUGH:
        old, new = old[:shorter], new[:shorter]
    return word_distance(" ".join(old), " ".join(new)) <= 0.1 * max(len(old), len(new))


_ENOUGH = 8
"""Words of a beginning that show whose draft it is."""


def learned(run: Run, arm: str, anew: AnewCompared | None = None, judged: JudgedPairs | None = None) -> Learned:
    """Everything that was measured, and the verdict."""
    heldout, accepted = run.rows("heldout"), run.rows("heldout_accepted")
    scored = {name: read_json(run.out / "heldout" / f"{name}.json") for name in ("old", arm)}

    def drafts(name: str, rows: Sequence[Correction]) -> dict[str, list[Rollout]]:
        return {how: run.drafts(f"{name}.{how}", [row.id for row in rows]) for how in DECODINGS}

    def against(rows: Sequence[Correction], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
        sent = {row.id: row.edited for row in rows}
        return {
            how: compare(edit_costs(new[how], sent), edit_costs(old[how], sent), **run.whose(rows)) for how in DECODINGS
        }

    sent = {row.id: row.edited for row in heldout}
    old, new = drafts("old", heldout), drafts(arm, heldout)
    along = {name: choices(run, f"{name}.points", "heldout") for name in ("old", arm)}
    by_id = {row.id: row for side in ("heldout", "selection", "train") for row in run.rows(side)}
    others = choices(run, "old.trained", "heldout")
    others += choices(run, "old", "selection") if run.counts("split")["selection"] else []
    measured = Measured(
        points=compare_choices(
            along[arm],
            along["old"],
            **run.whose([by_id[one.id] for one in along["old"]]),
            others=others,
            other_users=run.whose([by_id[one.id] for one in others])["users"],
        ),
        drafter=drafter(run),
        anew=anew,
        judged=judged,
        old={how: describe(old[how], sent) for how in DECODINGS},
        new={how: describe(new[how], sent) for how in DECODINGS},
        comparison=against(heldout, new, old),
        old_tokens=TokenLogprobs(**scored["old"]["tokens"]),
        new_tokens=TokenLogprobs(**scored[arm]["tokens"]),
        old_general=general_loss(run, "old")[0],
        new_general=general_loss(run, arm)[0],
    )
    limits = Limits(**{name: getattr(run.details, name) for name in Limits.__dataclass_fields__})
    return Learned(
        decision=decide(measured, limits),
        measured=measured,
        arm=arm,
        candidates=tuple(selection(run)),
        lowered=tuple(_lowered(run)),
        provenance=_provenance(run),
        logged_cost=interval([word_distance(row.original, row.edited) for row in heldout]),
        accepted=against(accepted, drafts(arm, accepted), drafts("old", accepted)) if len(accepted) > 1 else {},
        log=run.counts("log"),
        split=run.counts("split"),
        doctor=tuple(read_json(run.out / "doctor.json")["findings"]),
        general_tokens=general_loss(run, "old")[1],
        examples=tuple(_examples(heldout, old["greedy"], new["greedy"])),
    )


def _lowered(run: Run) -> Iterator[str]:
    """Each limit that lets more pass than the usual one, as it was typed."""
    usual = LearnDetails()
    for name in Limits.__dataclass_fields__:
        value, default = getattr(run.details, name), getattr(usual, name)
        if value < default if name.startswith("min_") else value > default:
            yield f"--{name.replace('_', '-')} {value:g} (usually {default:g})"
    if run.details.min_rows < usual.min_rows:
        yield f"--min-rows {run.details.min_rows} (usually {usual.min_rows})"
    if run.details.judge_by == "rows" and run.counts("log")["user_field"] and "users" in run.counts("split")["by"]:
        yield "--judge-by rows (usually users)"


def _provenance(run: Run) -> dict[str, str]:
    """Where a verdict comes from, for whoever reads it later."""
    settings = read_json(run.out / "settings.json")
    name, mark = settings["model"][:2]
    log = settings["log"]
    return {
        "model": f"{name} ({str(mark)[:12]})",
        "log": f"{run.log.name} ({log[:12]})" if isinstance(log, str) else run.log.name,
        "date": run.counts("log")["date"],
        "errata": version("errata"),
        **({"command": run.command} if run.command else {}),
    }


def _examples(rows: Sequence[Correction], old: Sequence[Rollout], new: Sequence[Rollout]) -> Iterator[Example]:
    """Rows on which the most was won, the most was lost, and some in between."""
    found = [
        Example(
            prompt=row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"],
            sent=row.edited,
            logged=row.original,
            old=before.text,
            new=after.text,
            old_cost=word_distance(before.text, row.edited),
            new_cost=word_distance(after.text, row.edited),
        )
        for row, before, after in zip(rows, old, new, strict=True)
    ]
    found.sort(key=lambda one: one.new_cost - one.old_cost)
    places = [0, 1, len(found) // 2, len(found) - 2, len(found) - 1]
    yield from (found[place] for place in dict.fromkeys(places) if 0 <= place < len(found))
