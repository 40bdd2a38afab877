"""Chat templates as the model families have them, and a tokenizer of bytes that knows their control tokens."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ASK = "{% if add_generation_prompt %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + ASK
    + "<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}" + ASK + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}" + ASK + "<start_of_turn>model\n{% endif %}"
)
MISTRAL = (  # no mark of its own for what is to come
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
    "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA_2 = MISTRAL.replace("{{ m.content }}{{ eos", " {{ m.content }} {{ eos").replace(
    "[INST] {{", "{{ '' if loop.first else bos_token }}[INST] {{"
)
NO_THOUGHTS = "<think>\n\n</think>\n\n"
QWEN_3_WITHOUT_THINKING = CHATML.replace("assistant\n{%", "assistant\n" + NO_THOUGHTS + "{%")
QWEN_3 = CHATML.replace(
    "}}\n{{ m",
    "}}\n{% if m.role == 'assistant' and loop.last %}" + NO_THOUGHTS.replace("\n", "{{ '\\n' }}") + "{% endif %}{{ m",
)
TWO_BEGINNINGS = "{{ bos_token }}" + LLAMA_3
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + ASK + "assistant: {% endif %}"
FORGETS = CHATML.replace("{% for m in messages %}", "{% for m in messages[(0 if add_generation_prompt else 1):] %}")
DEAF = "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}{% endif %}\n{% endfor %}"

CONTROL = {
    CHATML: ("<|im_start|>", "<|im_end|>"),
    LLAMA_3: ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    GEMMA: ("<start_of_turn>", "<end_of_turn>"),
}
ALL_CONTROL = tuple(token for tokens in CONTROL.values() for token in tokens)


def chat(template: str, *, bos: str | None = "<s>") -> PreTrainedTokenizerBase:
    """Bytes but for two line breaks, which are always one token as in Llama 3; every family's control tokens."""
    pieces = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    backend = Tokenizer(models.BPE(vocab={piece: k for k, piece in enumerate(pieces)}, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    # Special in the file of the tokenizer, and yet not among ``all_special_tokens``.
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in ALL_CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token="</s>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def spelled(tokenizer: PreTrainedTokenizerBase, *parts: str) -> tuple[int, ...]:
    """Ids by hand: a part that is a control token is one, every other part is bytes (and pairs of line breaks)."""
    ids: list[int] = []
    for part in parts:
        if part in (*ALL_CONTROL, "<s>", "</s>"):
            ids.append(tokenizer.convert_tokens_to_ids(part))
            continue
        pieces = part.split("\n\n")
        for k, piece in enumerate(pieces):
            marks = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(piece)
            ids += [tokenizer.convert_tokens_to_ids("ĊĊ")] * (k > 0)
            ids += [tokenizer.convert_tokens_to_ids(mark) for word, _ in marks for mark in word]
    return tuple(ids)
