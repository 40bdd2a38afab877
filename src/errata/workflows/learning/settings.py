"""What is decided about a run of ``errata learn``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from errata.doctor import Diagnosis
from errata.models import Save
from errata.pretrained.kinds import Attention, Dtype
from errata.ranges import Range, Ranged, Rank, Seed, Size, Weight
from errata.tuning import FIGA, SFT, method_of
from errata.workflows.split import SplitBy
from errata.workflows.verdict import Limits


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Ranged):
    """What one decides about a run."""

    heldout_share: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the rows used that judge the result and are never trained on."""
    mask_private: bool = True
    """Replace e-mail addresses, telephone, card and account numbers, IP addresses and private links by placeholders
    before anything is stored. Best effort: names stay."""
    max_new_tokens: Size = 256
    """Longest draft, in tokens."""
    epochs: Annotated[float, Range(above=0, high=1e6)] | Literal["auto"] = "auto"
    """Passes over the rows. auto: 3, and more over few rows, until there are 30 optimizer steps."""
    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    """Peak learning rate. auto: 2e-4 for an adapter, and 1e-5 without one (--lora-rank 0)."""


@dataclass(frozen=True, kw_only=True)
class LearnDetails(Limits):
    """What seldom has to be decided."""

    accepted_weight: Weight = 0.0
    """Weight of drafts that were sent without a change, which is no proof that they were good: 0 leaves them out, 1
    imitates them like the rest."""
    judge: str | None = None
    """A chat model that is shown fresh drafts of both models in both orders: anthropic:MODEL, openai:MODEL, MODEL@URL,
    URL or local:MODEL. It must not prefer the old model for certain. Its answers are in OUT/ledger.sqlite."""
    guideline: Path | None = None
    """A text file that a chat model of --editor or --judge is told: what your team wants and does not want."""
    editor_rows: Size = 100
    """Most held-out rows whose two drafts --editor corrects and --judge compares."""
    max_cost: Annotated[float, Range(low=0, high=inf)] | None = None
    """Stop before the chat model of --editor, or that of --judge, has cost more, in US dollars; the same command with
    more goes on."""
    user_field: str | None = None
    """Field that says who sent a row; else the first of user, annotator, author and the like. 'none': treat them as
    unknown."""
    time_field: str | None = None
    """Field that says when; else the first of time, date, timestamp, sent at, created at and the like that can be read.
    'none': treat it as unknown."""
    time_format: str | None = None
    """How times are written: iso, day-first, month-first, day-month-name, month-name-day, excel, seconds, milliseconds,
    microseconds, nanoseconds, or a strptime format such as '%d.%m.%Y %H:%M'; else what the whole column shows, and
    an error where it shows two."""
    normalize: str = "newlines"
    """Fold what programs change and nobody means, in drafts and sent texts and never in prompts: kinds with commas
    between, all, or none. Kinds: newlines, nfc, zero-width, soft-hyphens, variation-selectors, spaces, blanks,
    trailing, edges, quotes, dashes, ellipsis, entities, br. It is counted, and the report says what is left."""
    split_by: SplitBy = "auto"
    """What the held-out rows are set apart by; auto: the strictest of users-and-time, users, time and prompt that loses
    at most 15 % of the rows; what that gives up is said."""
    method: str = "both"
    """What is trained: a method of `errata tune` on files; or both, figa and sft, of which the better one on a part of
    the training rows is judged, and of each the best checkpoint."""
    selection_share: Annotated[float, Range(above=0, below=1)] = 0.1
    """Share of the training rows that choose the checkpoint and the method, and are not trained on."""
    min_rows: Size = 20
    """Fewest edited rows to train on, and to be judged by."""
    drafted_by: Literal["auto", "model", "other"] = "auto"
    """Who wrote the logged drafts. auto: --model, if asked anew it writes half of them again. model: it did, by
    sampling perhaps; then the distance to what was sent decides nothing. other: another model."""
    judge_by: Literal["auto", "users", "rows"] = "auto"
    """What counts once when the models are compared: users or rows. Rows of one user resemble each other, so a verdict
    by rows is about these users and says nothing of others. auto: users, where those who are held out were not trained
    on; rows, where the same people are on both sides, of whom alone the log can tell."""
    heldout_rows: Size = 500
    """Most rows, edited and accepted each, that are drafted anew."""
    temperature: Annotated[float, Range(above=0, high=100)] = 1.0
    """Of the drafts that are sampled; others are greedy."""
    kept_weight: Weight = 0.5
    """FIGA: weight of kept tokens."""
    good_weight: Weight = 1.0
    """FIGA: weight of what people wrote."""
    end_weight: Weight | None = None
    """FIGA: weight of the end of what was sent, where it is not --good-weight."""
    inventions: Literal["learn", "ignore"] = "learn"
    """ignore: what people added and no model could have known (numbers, names, links) is not learned."""
    bad_weight: Weight = 0.2
    """FIGA: size of the push away from what was struck out."""
    pull_weight: Weight = FIGA.learn["pull_weight"]
    """FIGA: how strongly kept tokens are held to what the old model says of them; 0: not at all."""
    lora_rank: Rank = 16
    """Train an adapter of this rank, merged when it is saved (LoRA); 0 trains all weights, at a lower learning rate."""
    quantize: Literal["none", "4bit"] = "none"
    """Hold the frozen weights in 4 bits while an adapter is trained (QLoRA); needs bitsandbytes."""
    gradient_checkpointing: bool = False
    """Less memory, a third more time."""
    batch_size: Size | Literal["auto"] = "auto"
    """Rows in one optimizer step. auto: a sixteenth of the rows or fewer, from 4 to 32."""
    micro_batch_size: Size = 8
    """Rows in one forward pass; lower it when memory runs out, the result stays the same."""
    lora_targets: str = "all-linear"
    """Which layers get the adapter: all-linear (but the output layer), names with commas between (q_proj,v_proj), or a
    regular expression of whole names."""
    lora_layers: Annotated[int, Range(low=0)] = 0
    """Adapt the uppermost so many layers only, which is faster; 0 adapts all."""
    attention: Attention = "auto"
    """Implementation of attention in training: auto leaves it to transformers. flash_attention_2 and 3 need their
    package, a GPU and --dtype bfloat16."""
    dtype: Dtype = "auto"
    """What training computes in. auto: as the weights are held. bfloat16: half the memory of activations, faster on a
    GPU."""
    bf16: bool = False
    """The old name of --dtype bfloat16."""
    save: Literal["auto"] | Save = "auto"
    """What candidates, and a promoted model, are saved as. merged: a whole model. adapter: only the adapter, a few
    hundredths of the size. both: merged, `adapter/` in it. auto: both, and adapter where the weights are quantized."""
    template: str = "auto"
    """auto: the chat template where there is one, else the prompt and a line break; or a text with {prompt}."""
    max_length: Size | None = None
    """The most tokens of a row. Default: what the model can take."""
    on_long: Literal["drop", "truncate"] = "drop"
    """What becomes of longer rows. drop: left out and counted. truncate: the end is cut off, and counted."""
    general_tokens: Size = 50_000
    """So many tokens of the general text are read."""
    seed: Seed = 0
    """Of training and sampling."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that are trained.

        Raises:
            ValueError: there is none of this name.
        """
        return BOTH if self.method == "both" else (method_of(self.method).name,)


BOTH = (FIGA.name, SFT.name)
"""Of equals the first."""


NO_SETTINGS = frozenset({*Limits.__dataclass_fields__, "drafted_by", "judge", "guideline", "editor_rows", "max_cost"})
"""Details that no stage is made by: a finished run can be judged again with others."""


class Waiting(ValueError):  # noqa: N818
    """People have to edit drafts first; nothing is lost meanwhile."""

    def __init__(self, what: str, command: str) -> None:
        super().__init__(
            f"{what}. Run:\n\n  {command}\n\nWith --annotators and names it hands out a link to each. When they are "
            "done, rerun the same command."
        )


class NotSafe(ValueError):  # noqa: N818
    """The doctor found errors: what would be trained is not what is meant."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__("not safe to train; " + "; ".join(map(str, diagnosis.findings)))
        self.diagnosis = diagnosis
