from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import tiny
from edits.tokenizers import FRAGMENTS, byte_level, every_tokenizer, metaspace, texts
from errata.data import PLAIN_TEMPLATE, Encoder, LongRow, OnLong

CHAT = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
HARD = {
    "emoji": "🙂 then 👩‍🚀 and 🏳️‍🌈",
    "combining": "e\u0301 a\u0301\u0302 and é",
    "CRLF": "one\r\ntwo\r\n",
    "tabs": "\tone\t\ttwo",
    "NUL": "one\x00two",
    "right-to-left": "שלום, مرحبا \u200fend",
    "replacement": "a\ufffdb\ufffd\ufffd",
}


def chat(template: str = CHAT) -> PreTrainedTokenizerBase:
    """Bytes, with a beginning, an end and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "</s>", "<turn>", *alphabet, "Ġð"]
    backend = Tokenizer(models.BPE(vocab={piece: k for k, piece in enumerate(pieces)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=["<turn>"],
        chat_template=template,
    )


def bytes_of(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text spelled byte by byte, as no tokenizer with merges would, and the character of each."""
    marks = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ids, offsets = [], []
    for k, character in enumerate(text):
        ((pieces, _),) = marks.pre_tokenize_str(character)
        ids += byte_level().convert_tokens_to_ids(list(pieces))
        offsets += [(k, k + 1)] * len(pieces)
    return ids, offsets


@every_tokenizer
@pytest.mark.parametrize("ended", [True, False])
def test_the_prompt_is_a_prefix_with_one_beginning_and_the_end_stands_last(tokenizer_of, ended) -> None:
    tokenizer = tokenizer_of()
    encoder = Encoder(tokenizer)

    @given(texts, texts)
    @example("say </s> <s>", "no </s> and <s>")
    def check(prompt: str, response: str) -> None:
        row = encoder.encode(prompt, response, ended=ended)
        prompt_ids = encoder.prompt_ids(prompt)
        assert row.ids[: row.prompt_length] == prompt_ids
        assert row.ids[row.prompt_length :] == row.response_ids
        # "<s>" and "</s>" in either text are text.
        assert row.ids.count(encoder.end_id) == ended
        assert row.ended == ended == (row.response_ids[-1:] == (encoder.end_id,))
        if tokenizer.bos_token_id is not None:
            assert row.ids.count(tokenizer.bos_token_id) == 1
            assert row.ids[0] == tokenizer.bos_token_id

    check()


@every_tokenizer
def test_offsets_cover_every_character_of_the_response_in_order(tokenizer_of) -> None:
    encoder = Encoder(tokenizer_of())

    @given(texts)
    def check(response: str) -> None:
        row = encoder.encode("prompt", response)
        assert len(row.offsets) == len(row.response_ids)
        assert row.offsets[-1] == (len(response), len(response)), "the end of sequence stands for no character"
        assert all(0 <= start <= stop <= len(response) for start, stop in row.offsets)
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(row.offsets, row.offsets[1:], strict=False))
        covered = {place for start, stop in row.offsets for place in range(start, stop)}
        assert all(place in covered for place, character in enumerate(response) if not character.isspace())

    check()


@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_hard_texts_come_back_exactly(text: str) -> None:
    encoder = Encoder(byte_level())
    row = encoder.encode(text, text)
    assert encoder.decode(row.response_ids) == text
    pieces = dict.fromkeys(row.offsets[:-1])
    assert "".join(text[start:stop] for start, stop in pieces) == text
    # What a model samples is kept, and read in the same way.
    assert encoder.encode_sampled(text, text, row.response_ids) == row


def test_a_control_token_spelled_as_text_is_text() -> None:
    encoder = Encoder(metaspace())
    row = encoder.encode("say </s>", "well </s> <s> no", ended=False)
    assert encoder.end_id not in row.ids
    assert row.ids.count(encoder.tokenizer.bos_token_id) == 1
    assert len(row.response_ids) > 4, "spelled out, piece by piece"


@pytest.mark.parametrize("text", ["The cat 🙂é.", "👩‍🚀", "\ufffd The", "a\ufffd\ufffdThe"])
def test_sampled_ids_are_kept_where_the_tokenizer_would_split_otherwise(text: str) -> None:
    encoder = Encoder(byte_level())
    ids, offsets = bytes_of(text)
    assert encoder.encode("prompt", "The", ended=False).response_ids != tuple(bytes_of("The")[0])
    for end in ([], [encoder.end_id]):
        row = encoder.encode_sampled("prompt", text, ids + end)
        assert row.response_ids == (*ids, *end)
        assert row.offsets == (*offsets, *[(len(text), len(text)) for _ in end])
        assert row.ended == bool(end)


@given(texts)
@example("".join(FRAGMENTS))
def test_offsets_of_bytes_are_those_of_their_characters(text: str) -> None:
    ids, offsets = bytes_of(text)
    row = Encoder(byte_level()).encode_sampled("prompt", text, ids)
    assert row.response_ids == tuple(ids)
    assert row.offsets == tuple(offsets)


def test_broken_bytes_of_a_model_belong_to_the_replacement_that_they_show_as() -> None:
    encoder = Encoder(byte_level())
    first, second = bytes_of("🙂")[0][:2]
    ids = [first, second, *bytes_of("no")[0]]
    text = encoder.decode(ids)
    assert text == "\ufffdno"
    assert encoder.encode_sampled("prompt", text, ids).offsets == ((0, 1), (0, 1), (1, 2), (2, 3))


def test_a_piece_may_hold_a_character_and_the_beginning_of_the_next() -> None:
    encoder = Encoder(chat())
    ids = encoder.tokenizer.convert_tokens_to_ids(["a", "Ġð", "Ł", "Ļ", "Ĥ", "."])
    assert encoder.encode_sampled("prompt", "a 🙂.", ids).offsets == ((0, 1), (1, 3), (2, 3), (2, 3), (2, 3), (3, 4))


def test_sampled_pieces_of_a_character_in_a_tokenizer_that_falls_back_to_bytes() -> None:
    encoder = Encoder(metaspace())
    pieces = ["▁", "T", "h", "e", "▁", "<0xC3>", "<0xA9>", "."]
    ids = encoder.tokenizer.convert_tokens_to_ids(pieces)
    assert encoder.tokenizer.unk_token_id not in ids
    row = encoder.encode_sampled("prompt", "The é.", ids)
    assert row.response_ids == tuple(ids)
    assert row.offsets == ((0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 5), (5, 6))


@pytest.mark.parametrize("ids", [[], [5, 6, 7]], ids=["none", "others"])
def test_ids_that_do_not_decode_to_the_response_are_an_error(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="do not decode to the response"):
        Encoder(byte_level()).encode_sampled("prompt", "The cat", ids)


def test_only_the_last_end_of_sequence_is_not_text() -> None:
    encoder = tiny.encoder()
    end, word = encoder.end_id, encoder.tokenizer.convert_tokens_to_ids("cat")
    assert encoder.decode([word, end]) == "cat"
    assert encoder.decode([word, end, word]) == "cat </s> cat"
    assert encoder.decode([]) == ""


def test_a_chat_template_is_used_where_there_is_one() -> None:
    encoder = Encoder(chat())
    conversation = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "count"},
    ]
    ids = encoder.prompt_ids(conversation)
    assert encoder.decode(ids) == "<s>[user] hi\n[assistant] hello\n[user] count\n[assistant] "
    assert ids.count(encoder.tokenizer.bos_token_id) == 1
    assert encoder.prompt_ids("hi") == encoder.prompt_ids([{"role": "user", "content": "hi"}])
    row = encoder.encode(conversation, "one </s>")
    assert row.ids[: row.prompt_length] == ids
    assert row.ids.count(encoder.end_id) == 1


def test_a_plain_template_needs_no_chat_template_for_one_message() -> None:
    encoder = tiny.encoder()
    assert encoder.template == PLAIN_TEMPLATE
    assert encoder.prompt_ids([{"role": "user", "content": "say cat"}]) == encoder.prompt_ids("say cat")
    braces = Encoder(chat(), template="Q: {prompt} {x}\nA:")
    assert braces.decode(braces.prompt_ids("{prompt}")) == "<s>Q: {prompt} {x}\nA:"


@pytest.mark.parametrize(
    "conversation",
    [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "system", "content": "a"}],
    ],
    ids=["two messages", "no user"],
)
def test_a_conversation_needs_a_chat_template(conversation: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="conversation and the tokenizer has no chat template"):
        tiny.encoder().prompt_ids(conversation)


@pytest.mark.parametrize("control", ["</s>", "<s>", "<turn>"])
def test_a_chat_message_that_spells_a_control_token_is_text(control: str) -> None:
    encoder = Encoder(chat())
    ids = encoder.prompt_ids([{"role": "user", "content": f"say {control}"}])
    assert encoder.decode(ids) == f"<s>[user] say {control}\n[assistant] "
    assert [token for token in ids if token < 3] == [encoder.tokenizer.bos_token_id]
    assert encoder.encode("say", f"{control} is text", ended=False).ids.count(encoder.end_id) == 0


def test_two_beginnings_from_a_chat_template_are_an_error() -> None:
    with pytest.raises(ValueError, match="begins with two beginning-of-sequence tokens"):
        Encoder(chat("{{ bos_token }}" + CHAT)).prompt_ids("hi")


def test_max_length_counts_everything_and_the_errors_name_the_numbers() -> None:
    row = tiny.encoder().encode("say cat", "two dog runs")
    assert len(row.ids) == 7, "beginning, two, three, end"
    assert Encoder(tiny.tokenizer(), max_length=7).encode("say cat", "two dog runs") == row
    with pytest.raises(ValueError, match="prompt and response have 7 tokens and the limit is 6"):
        Encoder(tiny.tokenizer(), max_length=6).encode("say cat", "two dog runs")
    with pytest.raises(ValueError, match="prompt and response have 7 tokens and the limit is 6"):
        Encoder(tiny.tokenizer(), max_length=6).encode_sampled("say cat", "two dog runs", row.response_ids)
    short = Encoder(tiny.tokenizer(), max_length=3)
    with pytest.raises(ValueError, match="the prompt has 3 tokens and the limit is 3"):
        short.prompt_ids("say cat")
    with pytest.raises(ValueError, match="the prompt has 3 tokens and the limit is 3"):
        short.encode("say cat", "two")
    assert len(short.prompt_ids("say")) == 2, "room for one token"


def longest(on_long: str, max_length: int) -> Encoder:
    return Encoder(byte_level(), max_length=max_length, on_long=on_long)


@pytest.mark.parametrize("max_length", [2, 4, 5, 9, 10, 11, 12, 99])
def test_truncation_cuts_ids_and_offsets_of_the_response_together(max_length: int) -> None:
    ids, _ = bytes_of("cat 😀")
    end = byte_level().eos_token_id
    # The prompt "a\n" is two tokens, the sampled response eight and its end.
    whole = Encoder(byte_level()).encode_sampled("a", "cat 😀", [*ids, end])
    assert (whole.prompt_length, len(whole.ids), whole.ended, whole.cut) == (2, 11, True, 0)
    encoder = longest("truncate", max_length)
    if max_length == 2:
        with pytest.raises(LongRow, match="the prompt has 2 tokens and the limit is 2"):
            encoder.encode_sampled("a", "cat 😀", [*ids, end])
        return
    row = encoder.encode_sampled("a", "cat 😀", [*ids, end])
    kept = min(11, max_length)
    assert row.ids == whole.ids[:kept], "as sampled, never tokenised again"
    assert row.offsets == whole.offsets[: kept - 2]
    assert row.prompt_length == 2
    assert row.ended == (kept == 11)
    assert row.cut == 11 - kept


@given(texts, texts, st.integers(1, 12), st.booleans())
def test_a_row_is_whole_dropped_or_cut_by_the_number_it_says(prompt, response, max_length, ended) -> None:
    whole = Encoder(byte_level()).encode(prompt, response, ended=ended)
    fits, room = len(whole.ids) <= max_length, max_length - whole.prompt_length
    for on_long in OnLong:
        encoder = longest(on_long, max_length)
        if room > 0 and (fits or on_long == OnLong.TRUNCATE):
            row = encoder.encode(prompt, response, ended=ended)
            assert row.ids == whole.ids[:max_length]
            assert len(row.offsets) == len(row.response_ids)
            assert row.cut == max(0, len(whole.ids) - max_length)
            assert row.ended == (ended and fits)
        else:
            with pytest.raises(ValueError, match=f"the limit is {max_length}; raise the limit") as caught:
                encoder.encode(prompt, response, ended=ended)
            assert isinstance(caught.value, LongRow) == (on_long != OnLong.ERROR)


def test_what_to_do_with_long_rows_needs_a_limit_and_a_known_word() -> None:
    with pytest.raises(ValueError, match="'drop' has no max_length to act on"):
        Encoder(byte_level(), on_long="drop")
    with pytest.raises(ValueError, match="'cut' is not a valid OnLong"):
        Encoder(byte_level(), max_length=3, on_long="cut")


def test_a_prompt_of_no_token_is_an_error() -> None:
    encoder = Encoder(byte_level(), template="{prompt}")
    with pytest.raises(ValueError, match="encodes to no id"):
        encoder.prompt_ids("")
    assert tiny.encoder().prompt_ids("") == (tiny.tokenizer().bos_token_id,)


@pytest.mark.parametrize("build", [byte_level, metaspace, tiny.tokenizer, chat], ids=lambda build: build.__name__)
def test_the_fingerprint_names_tokenizer_and_template_and_nothing_else(build, tmp_path: Path) -> None:
    tokenizer = build()
    found = Encoder(tokenizer).fingerprint
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert Encoder(loaded).fingerprint == found
    loaded.pad_token = loaded.eos_token
    loaded(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert Encoder(loaded).fingerprint == found
    assert Encoder(tokenizer, template="{prompt} =>").fingerprint != found


def test_fingerprints_differ_by_vocabulary_and_chat_template() -> None:
    encoders = [
        Encoder(byte_level()),
        Encoder(metaspace()),
        tiny.encoder(),
        Encoder(chat()),
        Encoder(chat(CHAT + " ")),
        Encoder(chat(), template=PLAIN_TEMPLATE),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    # Of no matter where the template is plain.
    assert Encoder(chat(CHAT + " "), template=PLAIN_TEMPLATE).fingerprint == encoders[-1].fingerprint


def test_padding_falls_back_to_the_end_of_sequence() -> None:
    assert tiny.encoder().pad_id == 0
    assert tiny.encoder(pad="</s>").pad_id == tiny.encoder().end_id
    assert Encoder(metaspace()).pad_id == Encoder(metaspace()).end_id, "metaspace has no pad token"


def test_what_an_encoder_cannot_work_with_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="load the fast tokenizer"):
        Encoder(ByT5Tokenizer())
    without_end = PreTrainedTokenizerFast(tokenizer_object=metaspace().backend_tokenizer)
    with pytest.raises(ValueError, match=r"set tokenizer\.eos_token"):
        Encoder(without_end)
    with pytest.raises(ValueError, match="has no chat template"):
        Encoder(tiny.tokenizer(), template="chat")
    with pytest.raises(ValueError, match=r"'question' has no \{prompt\}"):
        Encoder(tiny.tokenizer(), template="question")


def test_what_a_tokenizer_file_says_of_truncation_and_padding_is_not_done() -> None:
    tokenizer = copy.deepcopy(byte_level())
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    plain = Encoder(byte_level())
    assert Encoder(tokenizer).encode("Ask", "The cat sat on it.") == plain.encode("Ask", "The cat sat on it.")


@every_tokenizer
@given(data=st.data())
def test_all_at_once_is_one_by_one(tokenizer_of: Any, data: st.DataObject) -> None:
    encoder = Encoder(tokenizer_of(), max_length=data.draw(st.sampled_from([None, 9])))
    prompts = data.draw(st.lists(st.one_of(texts, st.just([{"role": "user", "content": "a"}])), max_size=4))
    responses = [data.draw(st.one_of(texts, st.just("\ud800"))) for _ in prompts]
    found = encoder.encode_all(prompts, responses)
    for prompt, response, row in zip(prompts, responses, found, strict=True):
        if isinstance(row, ValueError):
            with pytest.raises(type(row), match=f"^{re.escape(str(row))}$"):
                encoder.encode(prompt, response)
        else:
            assert row == encoder.encode(prompt, response)


def test_sampled_rows_at_once() -> None:
    encoder = Encoder(byte_level())
    spelled = encoder.tokenizer.convert_tokens_to_ids(["T", "h", "e"])
    given_ids = [(*spelled, encoder.end_id), None, (5,)]
    found = encoder.encode_all(["Ask"] * 3, ["The", "The", "The"], given_ids)
    assert found[0] == encoder.encode_sampled("Ask", "The", given_ids[0])
    assert found[1] == encoder.encode("Ask", "The")
    assert "do not decode" in str(found[2])


def test_whoever_uses_the_tokenizer_meanwhile_changes_nothing() -> None:
    """Truncation, padding and control tokens are settings of the tokenizer, which others set for themselves."""
    tokenizer = copy.deepcopy(chat())
    encoder = Encoder(tokenizer)
    before = encoder.encode_all(["Ask <s>", "Ask on"], ["The cat", "The mat"])
    tokenizer(["The", "The cat sat on the mat"], truncation=True, max_length=2)
    assert encoder.encode_all(["Ask <s>", "Ask on"], ["The cat", "The mat"]) == before


@pytest.mark.parametrize("make", [byte_level, chat])
def test_half_of_a_surrogate_pair_in_a_prompt_spoils_its_row_only(make: Any) -> None:
    encoder = Encoder(make())
    found = encoder.encode_all(["Ask", "Ask \ud800", "Eat"], ["a", "b", "c"])
    assert [type(row).__name__ for row in found] == ["Encoded", "ValueError", "Encoded"]
    assert "half of a surrogate pair" in str(found[1])
    assert found[2] == encoder.encode("Eat", "c")


def test_without_a_limit() -> None:
    limited = Encoder(byte_level(), max_length=4, on_long="drop")
    assert limited.unlimited.encode("Ask", "The cat sat") == Encoder(byte_level()).encode("Ask", "The cat sat")
    assert limited.max_length == 4
    assert Encoder(byte_level()).unlimited.max_length is None


@pytest.mark.parametrize("limit", [-5, 0])
def test_a_limit_that_no_row_can_meet_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_length is {limit}; give 1 token or more"):
        Encoder(byte_level(), max_length=limit)
