"""The findings in words."""

from __future__ import annotations

from collections.abc import Mapping

from errata.doctor.findings import Finding, Severity

__all__ = ["worded"]

_WHAT: Mapping[str, tuple[Severity, str, str]] = {
    # Of rows, before they are batched.
    "no_rows": (Severity.ERROR, "no row is left to train on", "see the other findings"),
    "sampled_ids_lie": (
        Severity.ERROR,
        "the sampled ids do not decode to the original text",
        "store ids and text as the model emitted them, and use its own tokenizer",
    ),
    "same_tokens": (
        Severity.ERROR,
        "the texts differ and their tokens do not",
        "use a tokenizer that can write both texts",
    ),
    "too_long": (Severity.ERROR, "rows are longer than the limit", "give --on-long drop or truncate, or raise it"),
    "offsets_lie": (
        Severity.ERROR,
        "the tokenizer's offsets do not point at what its tokens say",
        "use a tokenizer that does not normalise text",
    ),
    "not_encoded": (Severity.ERROR, "rows cannot be encoded or labelled", "mend the rows or the template"),
    "template": (Severity.ERROR, "the chat template departs from what is trained", "mend the template"),
    "template_note": (Severity.NOTE, "the chat template differs", "nothing is wrong with it"),
    "double_bos": (Severity.ERROR, "rows begin with two BOS", "let either the template or the tokenizer put it"),
    "beyond_vocabulary": (
        Severity.ERROR,
        "token ids are beyond the model's embedding",
        "use the model's own tokenizer, or resize its embedding",
    ),
    "beyond_positions": (
        Severity.ERROR,
        "rows are longer than the model's positions",
        "give --max-length with --on-long drop or truncate",
    ),
    "text_not_writable": (
        Severity.WARNING,
        "texts do not come back from their ids: the tokenizer normalises them or does not know their words",
        "use a tokenizer that can write them",
    ),
    "unknown_in_changes": (
        Severity.WARNING,
        "changed words are unknown tokens, so that the model learns to write them as such",
        "use a tokenizer that knows them",
    ),
    "dropped": (Severity.WARNING, "rows are dropped for their length", "raise --max-length"),
    "truncated": (
        Severity.WARNING,
        "rows are truncated, and their responses do not end",
        "raise --max-length, or drop them",
    ),
    "inventions": (
        Severity.WARNING,
        "edits add numbers, names or links that the model could not have known",
        "look at them with `errata edits stats`; `errata labels`, `tune figa` and `reward train` give them weight 0 "
        "with --inventions ignore",
    ),
    "unreadable": (
        Severity.WARNING,
        "rows of the file cannot be used",
        "mend them or set them aside",
    ),
    "without_gradient": (Severity.NOTE, "rows have no weight at all and are left out", "nothing to do"),
    # Of batches.
    "weights_dropped": (
        Severity.ERROR,
        "the batch has no weights: every supervised token weighs the same",
        "collate (and pack) the weights with the ids; give their name if it is another",
    ),
    "weights_cut_apart": (
        Severity.ERROR,
        "ids and weights of the batch are not equally long",
        "cut ids, labels and weights together",
    ),
    "weights_masked": (
        Severity.ERROR,
        "tokens with a weight are masked",
        "mask by weight != 0, never by > 0 or > 1e-6: FIGA's weights have both signs",
    ),
    "weights_changed": (Severity.ERROR, "weights are not those that were given", "hand them on unchanged, in place"),
    "nothing_trained": (
        Severity.ERROR,
        "nothing of the row is supervised",
        "look at the assistant or completion mask: it is zero where the template does not mark answers",
    ),
    "end_not_trained": (
        Severity.ERROR,
        "the end of sequence has a weight and is not supervised, so the model never learns to stop",
        "mask padding by length, never by id, and let the template's end be part of the answer",
    ),
    "cut_silently": (Severity.ERROR, "the collator cuts rows without a word", "raise its limit, or cut them here"),
    "row_lost": (Severity.ERROR, "rows are not in the batch", "look at the collator or packer"),
    "tokenised_again": (
        Severity.ERROR,
        "the batch has the text of the row in other ids: it was tokenised again",
        "hand ids on as they are; sampled ids above all",
    ),
    "prompt_trained": (
        Severity.ERROR,
        "tokens of the prompt are trained on",
        "let the completion mask reach the labels",
    ),
    "padding_trained": (Severity.ERROR, "padding is trained on", "mask padding by length"),
    "not_attended": (
        Severity.ERROR,
        "tokens of the row are masked from attention",
        "make the attention mask from lengths, never from ids: pad may equal the end of sequence",
    ),
    "padding_attended": (Severity.WARNING, "padding is attended to", "make the attention mask from lengths"),
    "packed_without_boundaries": (
        Severity.WARNING,
        "several rows share a line, and nothing in the batch says where one ends: they see each other",
        "hand in position_ids or sequence lengths",
    ),
}
"""Severity, what, remedy."""


def worded(name: str, *, rows: int = 0, example: str | None = None, detail: str = "") -> Finding:
    """A finding of this name."""
    severity, what, remedy = _WHAT[name]
    return Finding(
        severity=severity,
        name=name,
        what=f"{what}: {detail}" if detail else what,
        remedy=remedy,
        rows=rows,
        example=example,
    )
