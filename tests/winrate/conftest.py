"""A summary with made-up numbers that look like real ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from errata.winrate import (
    ArmResult,
    BestOfResult,
    ControlResult,
    CurvePoint,
    DecodedResult,
    Example,
    ExampleText,
    ExampleToken,
    LearningCurve,
    RewardModelResult,
    Summary,
    WinRateResult,
)


def decoded(win_rate: float, edit_cost: float, *, kl: float | None = 0.0) -> DecodedResult:
    return DecodedResult(
        win_rate=win_rate,
        ci_low=win_rate - 0.045,
        ci_high=win_rate + 0.045,
        mean_defects=edit_cost / 2.5,
        edit_cost=edit_cost,
        edit_cost_low=edit_cost - 0.21,
        edit_cost_high=edit_cost + 0.21,
        mean_length=41.3 + edit_cost / 3,
        well_formed=1 - edit_cost / 60,
        kl=kl,
        entropy=0.61,
        defects_by_kind={
            "wrong_fact": edit_cost / 6,
            "rude_word": edit_cost / 9,
            "missing_sentence": edit_cost / 15,
            "repetition": edit_cost / 30,
            "broken_closing": edit_cost / 45,
        },
        outsider=WinRateResult(win_rate=win_rate - 0.02, ci_low=win_rate - 0.07, ci_high=win_rate + 0.03),
    )


ARMS = (
    # name, seconds, greedy wins and cost, sampled wins and cost, KL
    ("start", 41.0, 0.5, 5.61, 0.5, 7.93, 0.0),
    ("sft_edited", 6.2, 0.522, 5.22, 0.561, 6.72, 2.31),
    ("dpo_preference", 10.4, 0.611, 4.35, 0.664, 5.31, 6.87),
    ("dpo_edited", 10.1, 0.742, 2.61, 0.781, 3.12, 8.11),
    ("figa", 8.8, 0.705, 2.94, 0.752, 3.44, 7.02),
    ("ppo_preference", 49.3, 0.588, 4.48, 0.661, 5.41, 5.93),
    ("ppo_edited", 50.8, 0.634, 3.91, 0.713, 4.61, 6.6),
    ("ppo_token", 51.9, 0.811, 1.78, 0.849, 2.21, 9.42),
    ("figa_ppo_token", 60.5, 0.823, 1.69, 0.861, 1.94, 11.8),
)
BEFORE = "The red kettle costs nine coins . It is a stupid thing . It is a stupid thing . Ask me again ."
AFTER = "The red kettle costs seven coins . It is sold in the harbour shop . Please ask me again ."
BAD = {"nine", "stupid", "seven"}


def response(text: str, phase: float) -> ExampleText:
    tokens = []
    for index, word in enumerate(text.split(" ")):
        value = -0.9 + phase if word in BAD else 0.35 * ((index * 7) % 5 - 1.6) / 4
        tokens.append(ExampleToken(text=" " * (index > 0) + word, value=value, outlined=word in BAD))
    tokens.append(ExampleToken(text="", value=0.2, outlined=False))
    return ExampleText(text=text, tokens=tuple(tokens))


def curve(arm: str, pace: float) -> LearningCurve:
    return LearningCurve(
        arm=arm,
        points=tuple(
            CurvePoint(
                step=step,
                seconds=1.02 * step + 0.4,
                kl=9.0 * pace * (1 - 0.955**step),
                proxy_reward=-0.4 + 1.6 * pace * (1 - 0.94**step) + 0.03 * ((step * 7) % 5 - 2),
                mean_defects=3.1 - 2.2 * pace * (1 - 0.95**step) + 0.06 * ((step * 3) % 5 - 2),
                win_rate=0.5 + 0.36 * pace * (1 - 0.95**step),
            )
            for step in range(0, 51, 5)
        ),
    )


@pytest.fixture
def summary() -> Summary:
    return make_summary()


def make_summary() -> Summary:
    arms = tuple(
        ArmResult(name=name, seconds=s, greedy=decoded(gw, gc, kl=kl + 0.8), sampled=decoded(sw, sc, kl=kl))
        for name, s, gw, gc, sw, sc, kl in ARMS
    )
    start = replace(decoded(0.5, 7.93), ci_low=0.5, ci_high=0.5)
    return Summary(
        seeds=(0,),
        arms=(replace(arms[0], sampled=start), *arms[1:]),
        controls=tuple(
            ControlResult(name=f"start at T={t}", temperature=t, sampled=decoded(rate, cost, kl=2.2))
            for t, rate, cost in ((0.7, 0.602, 6.48), (0.5, 0.644, 5.93), (0.3, 0.661, 5.66))
        ),
        reward_models=(
            RewardModelResult(
                name="sequence, preferences",
                kind="sequence",
                objective="Bradley-Terry",
                preference_accuracy=0.742,
                edit_accuracy=0.811,
                auc_bad_kept=None,
                auc_bad_good=0.598,
                best_of_8=BestOfResult(win_rate=0.701, mean_defects=2.03),
            ),
            RewardModelResult(
                name="token",
                kind="token",
                objective="changed-token classes",
                preference_accuracy=0.733,
                edit_accuracy=0.934,
                auc_bad_kept=0.9312,
                auc_bad_good=0.957,
                best_of_8=BestOfResult(win_rate=0.842, mean_defects=1.22),
            ),
        ),
        curves=(curve("ppo_preference", 0.45), curve("ppo_edited", 0.6), curve("ppo_token", 1.0)),
        data={"prompts": 1500, "rejected": 1200, "unchanged": 37, "words_typed": 4312, "words_typed_per_edit": 3.7},
        examples=(
            Example(
                prompt="Facts: the red kettle costs seven coins; it is sold in the harbour.\nTell me about the kettle.",
                before=response(BEFORE, 0.0),
                after=response(AFTER, 0.55),
                name="ppo_token",
            ),
            Example(
                prompt="Facts: the blue lamp weighs two pounds.\nWhat does the lamp weigh?",
                before=response("The blue lamp weighs nine pounds , stupid .", 0.1),
                after=response("The blue lamp weighs two pounds . Please ask me again .", 0.5),
                name="figa_ppo_token",
            ),
        ),
    )
