"""The verbs ``tune …``: train the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import EncodingFlags, check_labels_stand, console, set_aside, tell
from errata.data import Encoder, new_file, read_corrections, read_demonstrations, read_preferences, read_prompts
from errata.data.lengths import LengthCounts
from errata.labels import LabelRules, count_labels, label_all, read_labels
from errata.labels.rules import DEFAULT
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig, Stream, dpo, figa, ppo, sft
from errata.types import TokenLabels
from errata.views import rollouts_page

__all__ = ["TuneDPO", "TuneFIGA", "TunePPO", "TuneSFT"]


def _heldout(path: Path | None, encoder: Encoder, rules: LabelRules = DEFAULT) -> list[TokenLabels] | None:
    """Held-out corrections as labels; what length does to them is told."""
    if path is None:
        return None
    counts = LengthCounts()
    rows = list(label_all(read_corrections(path), encoder, rules, counts=counts))
    counts.check()
    if counts.dropped_too_long or counts.truncated:
        console.print(f"held out: {counts}", highlight=False)
    return rows


@dataclass(frozen=True, kw_only=True)
class TuneSFT:
    """Imitate responses, or the corrected side of edits: every response token has weight 1."""

    model: Path
    """A causal language model in a local folder."""
    data: Path
    """Rows with prompt and response (or completion, or chosen); an edits file is one."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[SFTConfig] = SFTConfig()

    def run(self) -> None:
        rows = read_demonstrations(self.data, set_aside=set_aside(self.out))
        encoder = self.encoding.encoder(self.model)
        tell(sft(self.model, rows, encoder, self.settings, self.out, heldout=_heldout(self.heldout, encoder)), self.out)


@dataclass(frozen=True, kw_only=True)
class TuneFIGA:
    """FIGA: imitate what the editor wrote, unlearn what the editor struck out; no reward model, no sampling.

    --preset paper sets the paper's weights: 1 on written, 0 on kept, 0.5 on struck-out tokens, gate 0.6.
    """

    model: Path
    """A causal language model in a local folder."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    edits: Path | None = None
    """Corrections; or give --labels."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from; labelled as --edits are."""
    rules: Flat[LabelRules] = LabelRules()
    preset: Literal["default", "paper"] = "default"
    """Whose settings stand under what else is given."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[FIGAConfig] = FIGAConfig()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        counts = None
        if self.labels is not None:
            check_labels_stand(self.rules, self.encoding)
            rows = read_labels(self.labels, encoder)
        else:
            assert self.edits is not None
            edits = read_corrections(self.edits, set_aside=set_aside(self.out))
            counts = LengthCounts()
            rows = list(label_all(edits, encoder, self.rules, counts=counts))
            counts.check()
        console.print(str(count_labels(rows)), highlight=False)
        heldout = _heldout(self.heldout, encoder, self.rules)
        tell(figa(self.model, rows, encoder, self.settings, self.out, counts=counts, heldout=heldout), self.out)


@dataclass(frozen=True, kw_only=True)
class TuneDPO:
    """Direct preference optimisation on preferences, or on edits (corrected over original)."""

    model: Path
    """A causal language model in a local folder; also the reference."""
    data: Path
    """Rows with prompt, chosen and rejected; an edits file is one."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[DPOConfig] = DPOConfig()

    def run(self) -> None:
        rows = read_preferences(self.data, set_aside=set_aside(self.out))
        encoder = self.encoding.encoder(self.model)
        tell(dpo(self.model, rows, encoder, self.settings, self.out, heldout=_heldout(self.heldout, encoder)), self.out)


@dataclass(frozen=True, kw_only=True)
class TunePPO:
    """Fine-grained PPO on a token-level reward model; ordinary PPO on a sequence-level one (--preset sequence).

    The defaults keep dense rewards sane (discount .5, KL .1); --preset paper sets the paper's recipe.
    """

    model: Path
    """The policy to start from, also the reference of the KL penalty."""
    reward: Path
    """A folder of `errata reward train`; one with a tokenizer of its own is read through the characters of the text."""
    prompts: Path
    """Rows with prompt; an edits file is one."""
    out: Path
    """Folder of the tuned model, with metrics.jsonl, samples.jsonl and report.html; plain transformers loads it."""
    reward_clip: float | None = None
    """The largest size of one of its rewards; none by default."""
    reward_centred: bool = False
    """Whether the mean of the round is taken off its rewards."""
    terminal_reward: Path | None = None
    """A second one that pays for whole responses, with a discount and a critic head of its own; its advantages are
    mixed with those of --reward."""
    critic: Path | None = None
    """A model to start the critic from; the policy, if not given."""
    preset: Literal["default", "paper", "sequence"] = "default"
    """Whose settings stand under what else is given."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[PPOConfig] = PPOConfig()

    def run(self) -> None:
        prompts = read_prompts(self.prompts, set_aside=set_aside(self.out))
        encoder = self.encoding.encoder(self.model)
        streams = [Stream(name="reward", reward=self.reward, clip=self.reward_clip, centred=self.reward_centred)]
        if self.terminal_reward is not None:
            streams.append(Stream(name="terminal", reward=self.terminal_reward, terminal=True))
        card = ppo(self.model, streams, prompts, encoder, self.settings, self.out, critic=self.critic)
        lines, samples = (
            [json.loads(line) for line in (self.out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("metrics", "samples")
        )
        page = rollouts_page(
            samples[-20:], title=self.out.name, show="advantages", lines=lines, warnings=card.get("warnings", ())
        )
        with new_file(self.out / "report.html") as partial:
            partial.write_text(page, encoding="utf-8")
        tell(card, self.out)
