"""Arms against one baseline on the same prompts, by one judge: everything that is made of the rulings.

The classes spell out the JSON file: each is an object with these keys. ``contest`` makes them and draws on chance only
by its seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, compress

import numpy as np

from errata.client import total_cost
from errata.edits.word_spans import split_words
from errata.types import Demonstration
from errata.winrate.contests import (
    Contest,
    ContestArm,
    ContestDifference,
    ContestExample,
    Slice,
    Spent,
)
from errata.winrate.intervals import (
    detectable_rate,
    rate_difference_interval,
    rate_interval,
    sign_flip_p_value,
)
from errata.winrate.judges import Judge, JudgeIdentity, Pair, Ruling, kinship, prompt_text
from errata.winrate.lengths import LONGER, length_controlled, longer_agreement, longer_wins, relative_length

__all__ = ["compare_rulings", "contest", "pair_up", "slices_by", "swapped"]

_HALF = 0.5
_FEW = 30
"""Below so many prompts a warning says that there are few."""
_LOPSIDED = 0.1
"""From so far from one half on a share of verdicts that went to the longer answer is warned of."""
_LENGTH_NAMES = ("shorter", "alike", "longer")


def pair_up(arms: Mapping[str, Sequence[Demonstration]], baseline: Sequence[Demonstration]) -> dict[str, list[Pair]]:
    """For each arm its pairs, in the order of the baseline.

    Raises:
        ValueError: An arm and the baseline answer different prompts (names the arm and the prompt), or one of them
            answers one several times.
    """
    paired = {}
    of_prompt = [row.extra["prompt_id"] for row in baseline if "prompt_id" in row.extra]
    if len(set(of_prompt)) < len(of_prompt):
        raise ValueError("the baseline has several answers to one prompt, which are no separate prompts; give one each")
    for name, rows in (("the baseline", baseline), *arms.items()):
        again, times = Counter(row.id for row in rows).most_common(1)[0] if rows else ("", 1)
        if times > 1:
            raise ValueError(f"{name} has {times} rows with the id {again!r}; give one answer to each prompt")
    for arm, rows in arms.items():
        answers = {row.id: row for row in rows}
        for there, here, what in ((answers, baseline, arm), ({row.id for row in baseline}, rows, "the baseline")):
            missing = [row.id for row in here if row.id not in there]
            if missing:
                raise ValueError(
                    f"{what} has no answer to the prompt {missing[0]!r} ({len(missing)} in all); give all sides the "
                    "same prompts, by id"
                )
        for row in baseline:
            if prompt_text(answers[row.id].prompt) != prompt_text(row.prompt):
                raise ValueError(f"the id {row.id!r} names another prompt in {arm} than in the baseline; mend the ids")
        paired[arm] = [
            Pair(id=row.id, prompt=row.prompt, candidate=answers[row.id].response, baseline=row.response, arm=arm)
            for row in baseline
        ]
    return paired


def contest(
    arms: Mapping[str, Sequence[Demonstration]],
    baseline: Sequence[Demonstration],
    judge: Judge,
    *,
    baseline_name: str = "baseline",
    group_field: str | None = None,
    editors: Sequence[str] = (),
    seed: int = 0,
    date: str = "",
    examples: int = 8,
) -> tuple[Contest, dict[str, list[Ruling]]]:
    """Judge every arm against the baseline, and compare.

    Args:
        arms: By name the answers; ids say which prompt each answers.
        baseline: Answers to the same prompts.
        judge: Called once with all pairs.
        baseline_name: What the report calls it.
        group_field: A field of the baseline's rows that names each prompt's group.
        editors: Models that made the edits which the arms learned from; the rows' field ``editor_model`` adds to them.
        seed: Of the sign flips.
        date: ISO 8601, for the report.
        examples: How many prompts to show.

    Returns:
        The contest, and by arm the rulings in the order of the baseline.

    Raises:
        ValueError: As ``pair_up``; fewer than two prompts; a row lacks the group field.
    """
    if not arms:
        raise ValueError("no candidate to judge; give one or more")
    if len(baseline) < 2:
        raise ValueError(f"{len(baseline)} prompts: a win rate with an interval needs two or more")
    paired = pair_up(arms, baseline)
    flat = [pair for pairs in paired.values() for pair in pairs]
    rulings = judge(flat)
    assert len(rulings) == len(flat), "a judge rules on every pair"
    by_arm = {arm: rulings[k * len(baseline) : (k + 1) * len(baseline)] for k, arm in enumerate(paired)}
    groups = None if group_field is None else [_group(row, group_field) for row in baseline]
    every_row = [*baseline, *(row for rows in arms.values() for row in rows)]
    edited_by = {str(row.extra["editor_model"]) for row in every_row if row.extra.get("editor_model")}
    found = compare_rulings(
        paired,
        by_arm,
        judge.identity,
        baseline_name=baseline_name,
        groups=groups,
        group_field=group_field,
        editors=sorted({*editors, *edited_by}),
        seed=seed,
        date=date,
        examples=examples,
    )
    return found, by_arm


def compare_rulings(
    paired: Mapping[str, Sequence[Pair]],
    rulings: Mapping[str, Sequence[Ruling]],
    judge: JudgeIdentity,
    *,
    baseline_name: str = "baseline",
    groups: Sequence[str] | None = None,
    group_field: str | None = None,
    editors: Sequence[str] = (),
    seed: int = 0,
    date: str = "",
    examples: int = 8,
) -> Contest:
    """What the rulings say, whoever made them; arguments are those of ``contest``, groups one a prompt."""
    arms = tuple(_arm(arm, pairs, rulings[arm], groups) for arm, pairs in paired.items())
    every = [ruling for made in rulings.values() for ruling in made]
    return Contest(
        baseline=baseline_name,
        judge=judge,
        arms=arms,
        differences=tuple(_difference(a, b, rulings, seed) for a, b in combinations(paired, 2)),
        group_field=group_field,
        seed=seed,
        date=date,
        spent=Spent(
            input_tokens=sum(ruling.input_tokens for ruling in every),
            output_tokens=sum(ruling.output_tokens for ruling in every),
            cost=total_cost(ruling.cost for ruling in every),
        ),
        warnings=tuple(_warnings(judge, arms, editors, paired)),
        examples=_examples(paired, rulings, examples),
    )


def swapped(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs with candidate and baseline in each other's place: their win rate is 1 minus the other."""
    return [
        Pair(id=pair.id, prompt=pair.prompt, candidate=pair.baseline, baseline=pair.candidate, arm=pair.arm)
        for pair in pairs
    ]


def _group(row: Demonstration, name: str) -> str:
    if name not in row.extra:
        raise ValueError(f"row {row.id!r} of the baseline has no field {name!r} to group by; add it, or name another")
    return str(row.extra[name])


def slices_by(names: Sequence[str], rulings: Sequence[Ruling], order: Sequence[str]) -> tuple[Slice, ...]:
    """The mean valid verdict by name, in the given order of names; names without one are left out."""
    by_name: dict[str, list[float]] = {name: [] for name in order}
    for name, ruling in zip(names, rulings, strict=True):
        if ruling.valid:
            by_name[name].append(ruling.score)
    rates = {name: rate_interval(scores) for name, scores in by_name.items() if scores}
    return tuple(
        Slice(name=name, prompts=len(by_name[name]), win_rate=rate.mean, interval=rate) for name, rate in rates.items()
    )


def _arm(name: str, pairs: Sequence[Pair], rulings: Sequence[Ruling], groups: Sequence[str] | None) -> ContestArm:
    usable = [ruling.valid for ruling in rulings]
    valid = [ruling.score for ruling in rulings if ruling.valid]
    rate = rate_interval(valid) if valid else None
    ours, theirs = (
        [len(split_words(text)) for text in texts]
        for texts in zip(*((p.candidate, p.baseline) for p in pairs), strict=True)
    )
    longer = [float(a - b) for a, b, ruled in zip(ours, theirs, usable, strict=True) if ruled]
    orders = [ruling.orders for ruling in rulings if ruling.orders is not None]
    # The candidate was first in the first order and second in the other.
    chose_first = [word == 1 for word, _ in orders if word != _HALF] + [
        word == 0 for _, word in orders if word != _HALF
    ]
    values = [ruling.values for ruling in rulings if ruling.values is not None]
    return ContestArm(
        name=name,
        prompts=len(pairs),
        valid=len(valid),
        win_rate=rate,
        win_rate_invalid_tied=(sum(valid) + _HALF * (len(rulings) - len(valid))) / len(rulings) if valid else None,
        standard_error=float(np.std(valid, ddof=1)) / len(valid) ** 0.5 if len(valid) > 1 else None,
        wins=sum(score > _HALF for score in valid),
        ties=sum(score == _HALF for score in valid),
        losses=sum(score < _HALF for score in valid),
        invalid=len(rulings) - len(valid),
        detectable=detectable_rate(valid) if valid else None,
        mean_length=float(np.mean(ours)),
        baseline_length=float(np.mean(theirs)),
        length_controlled=length_controlled(valid, longer) if len(valid) > 1 else None,
        longer_wins=longer_wins(longer) if valid else None,
        longer_agreement=longer_agreement(valid, *(list(compress(side, usable)) for side in (ours, theirs))),
        consistency=float(np.mean([a == b for a, b in orders])) if orders else None,
        first_position=float(np.mean(chose_first)) if chose_first else None,
        mean_value=float(np.mean([value for value, _ in values])) if values else None,
        baseline_value=float(np.mean([value for _, value in values])) if values else None,
        by_length=slices_by(list(map(relative_length, ours, theirs)), rulings, _LENGTH_NAMES),
        by_group=() if groups is None else slices_by(groups, rulings, _largest_first(groups)),
        verdicts={pair.id: _score(ruling) for pair, ruling in zip(pairs, rulings, strict=True)},
        invalid_ids=tuple(pair.id for pair, ruling in zip(pairs, rulings, strict=True) if not ruling.valid),
    )


def _score(ruling: Ruling) -> float | None:
    return ruling.score if ruling.valid else None


def _largest_first(groups: Sequence[str]) -> list[str]:
    return sorted(set(groups), key=lambda name: (-groups.count(name), name))


def _difference(first: str, second: str, rulings: Mapping[str, Sequence[Ruling]], seed: int) -> ContestDifference:
    both = zip(rulings[first], rulings[second], strict=True)
    paired = [a.score - b.score for a, b in both if a.valid and b.valid]
    return ContestDifference(
        first=first,
        second=second,
        prompts=len(paired),
        difference=rate_difference_interval(paired) if paired else None,
        p_value=sign_flip_p_value(paired, seed=seed) if paired else None,
        detectable=detectable_rate(paired, about=0.0, span=2.0) if paired else None,
    )


def _warnings(
    judge: JudgeIdentity,
    arms: Sequence[ContestArm],
    editors: Sequence[str],
    paired: Mapping[str, Sequence[Pair]],
) -> list[str]:
    found = []
    prompts = [prompt_text(pair.prompt) for pair in next(iter(paired.values()))]
    if again := len(prompts) - len(set(prompts)):
        found.append(
            f"{again} of {len(prompts)} rows ask what another row asks, and count as prompts of their own: the "
            "intervals are too narrow and the p-values too small; give one answer to each prompt"
        )
    if judge.kind == "chat" and (kin := kinship(judge.models or (judge.name,), editors)):
        found.append(kin)
    if judge.kind == "reward":
        found.append(
            "the judge is a reward model, a proxy: if an arm was trained on it, or on what it was trained on, its win "
            "rate shows what was optimised and not what is better"
        )
    for arm in arms:
        if arm.prompts < _FEW:
            found.append(f"{arm.name}: {arm.prompts} prompts are few; only a large difference shows on so few")
        if arm.win_rate is None:
            found.append(
                f"{arm.name}: no valid verdict, 0 of {arm.prompts}: there is no win rate; read the judge's "
                "reasons in the report's examples, then ask another judge or mend its answers"
            )
        elif arm.invalid:
            tied = arm.win_rate_invalid_tied
            assert tied is not None
            found.append(
                f"{arm.name}: {arm.invalid} of {arm.prompts} pairs have no valid verdict and are in no rate; counted "
                f"as ties they would make the win rate {100 * tied:.1f} %"
            )
        if arm.consistency is not None and arm.consistency < 0.7:
            share = 1 - arm.consistency
            found.append(
                f"{arm.name}: the judge contradicts itself on {100 * share:.0f} % of the pairs when the two answers "
                "change places"
            )
        chosen = arm.longer_agreement
        if chosen is not None and not chosen.low <= _HALF <= chosen.high and abs(chosen.mean - _HALF) > _LOPSIDED:
            side, shares = "longer", (chosen.mean, chosen.low, chosen.high)
            if chosen.mean < _HALF:
                side, shares = "shorter", (1 - chosen.mean, 1 - chosen.high, 1 - chosen.low)
            said = "{:.0f} % ({:.0f} to {:.0f})".format(*(100 * one for one in shares))
            found.append(
                f"{arm.name}: {said} of the decided verdicts went to the {side} answer, where one has {LONGER} times "
                "the other's words"
            )
    return found


def _examples(
    paired: Mapping[str, Sequence[Pair]], rulings: Mapping[str, Sequence[Ruling]], most: int
) -> tuple[ContestExample, ...]:
    """The prompts on which the arms' verdicts spread most; with one arm wins and losses in turn."""
    arms = list(paired)
    # An invalid verdict shows no difference.
    scores = np.array([[ruling.score if ruling.valid else _HALF for ruling in rulings[arm]] for arm in arms])
    spread = scores.max(axis=0) - scores.min(axis=0) if len(arms) > 1 else np.abs(scores[0] - _HALF)
    ranked = np.argsort(-spread, kind="stable").tolist()
    if len(arms) == 1:
        # Half of them wins, half losses, or a one-sided contest would show one side only.
        sides = [[k for k in ranked if (scores[0][k] > _HALF) == won] for won in (True, False)]
        ranked = [k for k in ranked if k in (*sides[0][: (most + 1) // 2], *sides[1][: most // 2])]
    found = []
    for k in ranked[:most]:
        pair = paired[arms[0]][k]
        found.append(
            ContestExample(
                id=pair.id,
                prompt=prompt_text(pair.prompt),
                baseline=pair.baseline,
                answers={arm: paired[arm][k].candidate for arm in arms},
                verdicts={arm: _score(rulings[arm][k]) for arm in arms},
                reasons={arm: rulings[arm][k].reasons for arm in arms},
            )
        )
    return tuple(found)
