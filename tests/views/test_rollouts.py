from __future__ import annotations

from typing import Any

import pytest

from errata.views import rollouts_page, rollouts_to_terminal


def row(**changes: Any) -> dict[str, Any]:
    streams = {"advantages": [0.5, -2.0], "rewards/kl": [0.0, 0.25]}
    told = {"step": 3, "id": "a<b", "prompt": "say <b>", "ids": [7, 8], "tokens": ["Ġcat", "<i>"]}
    return {**told, **streams, **changes}


def test_a_page_has_curves_warnings_and_every_number_of_a_token() -> None:
    lines = [{"step": 0}, *({"step": k, "objective/kl": float(k)} for k in (1, 2))]
    page = rollouts_page([row()], title="run", show="advantages", lines=lines, warnings=["it <stops>"])
    assert page.count("<svg") == 1
    assert "objective/kl" in page
    assert "it &lt;stops&gt;" in page
    assert "±2" in page
    assert "-2 · advantages: -2 · rewards/kl: 0.25" in page
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert "<b>" not in page


def test_the_terminal_shows_what_was_asked_for() -> None:
    assert "±0.25" in rollouts_to_terminal([row()], show="rewards/kl").plain
    assert "⁻" in rollouts_to_terminal([row()], show="advantages").plain


def test_another_stream_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no 'values' in rollout 'a<b'; choose from advantages, rewards/kl"):
        rollouts_page([row()], title="run", show="values")
