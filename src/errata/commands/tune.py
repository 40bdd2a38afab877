"""The verbs ``tune …``: train the policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import arg

from errata.commands.help import USUAL
from errata.commands.hub import HubFlags
from errata.commands.shared import (
    RESUMES_TRAINING,
    EncodingFlags,
    NormalizeFlags,
    Source,
    check_labels_stand,
    choice_of,
    console,
    set_aside,
    tell,
    tell_normalized,
)
from errata.data import Encoder, read_corrections, read_demonstrations, read_preferences, read_prompts
from errata.data.lengths import LengthCounts
from errata.labels import LabelRules, count_labels, label_all, read_labels
from errata.labels.rules import DEFAULT
from errata.models import Sampling, identity
from errata.ranges import Range, Ranged
from errata.reward import encoder_of
from errata.runs import fingerprint_of, new_file
from errata.training import OfflineConfig, OfflineMethod, Reads, run_offline
from errata.tuning import PPOConfig, Stream, methods, train_ppo
from errata.types import PromptRow, TokenLabels
from errata.views import rollouts_page
from errata.winrate import reward_judge, win_rate_over_start

__all__ = ["TuneOffline", "TuneOnDemonstrations", "TuneOnLabels", "TuneOnPairs", "TunePPO", "command_of"]


_AS_THEY_ARE = NormalizeFlags()


def _heldout(
    path: Path | None,
    source: Source,
    encoder: Encoder,
    rules: LabelRules = DEFAULT,
    normal: NormalizeFlags = _AS_THEY_ARE,
) -> list[TokenLabels] | None:
    """Held-out corrections as labels; what length does to them is told."""
    if path is None:
        return None
    counts, normalizer = LengthCounts(), normal.normalizer()
    rows = list(label_all(map(normalizer, read_corrections(path, **source.how)), encoder, rules, counts=counts))
    counts.check()
    if normalizer.kinds:
        console.print(f"held out: {normalizer}", highlight=False, markup=False, soft_wrap=True)
    if counts.dropped_too_long or counts.truncated:
        console.print(f"held out: {counts}", highlight=False)
    return rows


Source_ = tuple[Iterable[Any], Encoder, LengthCounts | None, list[TokenLabels] | None]
"""Rows, the encoder, what labelling said of their length, and held-out labels."""


class TuneOffline:
    """What the verbs of all methods on files do; ``command_of`` makes one of a method."""

    stopped = RESUMES_TRAINING
    method: ClassVar[OfflineMethod[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def run(self: Any) -> None:
        """Read, train, tell, and push where that is asked for."""
        self.hub.check()
        rows, encoder, counts, heldout = self.read()
        card = run_offline(
            self.method, self.model, rows, encoder, self.settings, self.out, counts=counts, heldout=heldout
        )
        tell(card, self.out)
        self.hub.push(self.out)


@dataclass(frozen=True, kw_only=True)
class TuneOnDemonstrations(TuneOffline):
    """A method that reads responses."""

    model: Path
    """A causal language model: a local folder, a GGUF file, or owner/name or owner/name@revision of the Hugging Face
    Hub; or a folder of a LoRA adapter, with which training goes on."""
    data: Path
    """Rows with prompt and response (or completion, or chosen); an edits file is one. A file, or a data set of the Hub:
    owner/name, owner/name@revision, with :split where it has several."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[OfflineConfig] = OfflineConfig()
    hub: Flat[HubFlags] = HubFlags()

    def read(self) -> Source_:
        """The responses."""
        rows = read_demonstrations(self.data, set_aside=set_aside(self.out), **self.source.how)
        encoder = self.encoding.encoder(self.model)
        return rows, encoder, None, _heldout(self.heldout, self.source, encoder)


@dataclass(frozen=True, kw_only=True)
class TuneOnPairs(TuneOffline):
    """A method that reads a better and a worse response."""

    model: Path
    """A causal language model, also the reference: a local folder, a GGUF file, or owner/name or owner/name@revision of
    the Hugging Face Hub; or a folder of a LoRA adapter, with which training goes on."""
    data: Path
    """Rows with prompt, chosen and rejected, or the names of another pair (draft, sent); an edits file is one. A file,
    or a data set of the Hub: owner/name, owner/name@revision, with :split where it has several."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[OfflineConfig] = OfflineConfig()
    hub: Flat[HubFlags] = HubFlags()

    def read(self) -> Source_:
        """The pairs."""
        rows = read_preferences(self.data, set_aside=set_aside(self.out), **self.source.how)
        encoder = self.encoding.encoder(self.model)
        return rows, encoder, None, _heldout(self.heldout, self.source, encoder)


@dataclass(frozen=True, kw_only=True)
class TuneOnLabels(TuneOffline):
    """A method that reads corrections, labelled token by token."""

    model: Path
    """A causal language model: a local folder, a GGUF file, or owner/name or owner/name@revision of the Hugging Face
    Hub; or a folder of a LoRA adapter, with which training goes on."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    edits: Path | None = None
    """Corrections, or give --labels: a file, or a data set of the Hub: owner/name, owner/name@revision, with :split
    where it has several."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    heldout: Path | None = None
    """Corrections to look at during training and never to learn from; labelled as --edits are."""
    normal: Flat[NormalizeFlags] = NormalizeFlags()
    rules: Flat[LabelRules] = LabelRules()
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[OfflineConfig] = OfflineConfig()
    hub: Flat[HubFlags] = HubFlags()

    def read(self) -> Source_:
        """The corrections, labelled, or the labels."""
        encoder = self.encoding.encoder(self.model)
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        counts = None
        if self.labels is not None:
            asked = self.presets.get(getattr(self, "preset", "default"), {})
            usual = LabelRules(**{each.name: asked[each.name] for each in fields(LabelRules) if each.name in asked})
            check_labels_stand(self.rules, self.encoding, self.normal, usual=usual)
            rows = read_labels(self.labels, encoder)
        else:
            assert self.edits is not None
            normalizer = self.normal.normalizer()
            edits = read_corrections(self.edits, set_aside=set_aside(self.out), **self.source.how)
            counts = LengthCounts()
            rows = list(label_all(map(normalizer, edits), encoder, self.rules, counts=counts))
            counts.check()
            tell_normalized(normalizer)
        console.print(str(count_labels(rows)), highlight=False)
        return rows, encoder, counts, _heldout(self.heldout, self.source, encoder, self.rules, self.normal)


_BASES: Mapping[Reads, type[TuneOffline]] = {
    "demonstrations": TuneOnDemonstrations,
    "pairs": TuneOnPairs,
    "labels": TuneOnLabels,
}


@lru_cache
def command_of(method: OfflineMethod[Any]) -> type[TuneOffline]:
    """The verb ``tune NAME`` of a method: what it reads and its settings are the flags."""
    flags: list[Any] = [("settings", Flat[method.config], method.config())]  # type: ignore[name-defined,misc]
    if method.presets:
        names = choice_of(["default", *method.presets])
        flags.append(
            ("preset", Annotated[names, arg(help="Whose settings stand under what else is given.")], "default")
        )
    shown = USUAL | method.own_settings
    namespace = {"method": method, "presets": method.presets, "shown": shown, "__doc__": method.about}
    kind: type[TuneOffline] = make_dataclass(
        f"Tune{method.name.upper()}",
        flags,
        bases=(_BASES[method.reads],),
        namespace=namespace,
        frozen=True,
        kw_only=True,
    )
    kind.__module__ = __name__
    return kind


def __getattr__(name: str) -> Any:
    for method in methods():
        if name == f"Tune{method.name.upper()}":
            return command_of(method)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, kw_only=True)
class TunePPO(Ranged):
    """Fine-grained PPO on a token-level reward model; ordinary PPO on a sequence-level one (--preset sequence).

    The defaults keep dense rewards sane (discount .5, KL .2); --preset paper sets the paper's recipe.
    """

    stopped = RESUMES_TRAINING
    shown = (
        *("columns", "steps", "rollouts_per_step", "learning_rate", "lora_rank", "max_new_tokens", "kl_coefficient"),
        "evaluate_every",
    )

    model: Path
    """The policy to start from, also the reference of the KL penalty: a local folder, a GGUF file, or owner/name or
    owner/name@revision of the Hugging Face Hub; or a folder of a LoRA adapter, with which training goes on."""
    reward: Path
    """A folder of `errata reward train`; one with a tokenizer of its own is read through the characters of the text."""
    prompts: Path
    """Rows with prompt; an edits file is one."""
    out: Path
    """Folder of the tuned model, with metrics.jsonl, samples.jsonl and report.html; plain transformers loads it."""
    reward_coefficient: Annotated[float, Range(low=-1e6, high=1e6)] = 1.0
    """What each of its rewards is multiplied by."""
    reward_clip: Annotated[float, Range(above=0)] | None = None
    """The largest size of one of its rewards, before the coefficient; none by default."""
    reward_centred: bool = False
    """Whether the mean of the round is taken off its rewards."""
    reward_penalties_only: bool = False
    """Whether it only takes off, and pays nothing above 0; well beside a --terminal-reward."""
    terminal_reward: Path | None = None
    """A second one that pays for whole responses, with a discount and a critic head of its own; its advantages are
    mixed with those of --reward by --terminal-weight."""
    terminal_coefficient: Annotated[float, Range(low=-1e6, high=1e6)] = 1.0
    """As --reward-coefficient, of the second one: its size beside --missing-eos-penalty."""
    terminal_clip: Annotated[float, Range(above=0)] | None = None
    """As --reward-clip, of the second one."""
    terminal_centred: bool = False
    """As --reward-centred, of the second one."""
    heldout: Path | None = None
    """Rows with prompt, to be answered every --evaluate-every steps and never to be learned from: the policy whose
    answers win most often over the start's is kept in `best`, beside the last."""
    judge: Path | None = None
    """A folder of `errata reward train` that says which answer wins; another than --reward, which the policy learns to
    please."""
    critic: Path | None = None
    """A model to start the critic from; the policy, if not given."""
    preset: Literal["default", "paper", "sequence"] = "default"
    """Whose settings stand under what else is given."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[PPOConfig] = PPOConfig()
    hub: Flat[HubFlags] = HubFlags()

    def run(self) -> None:
        self.hub.check()
        prompts = read_prompts(self.prompts, set_aside=set_aside(self.out), **self.source.how)
        encoder = self.encoding.encoder(self.model)
        streams = [self._stream("reward", self.reward)]
        if self.terminal_reward is not None:
            streams.append(self._stream("terminal", self.terminal_reward))
        settings, more = self.settings, dict[str, Any](critic=self.critic)
        if self.heldout is not None or self.judge is not None:
            settings = replace(settings, best_by=settings.best_by or "win_rate")
            more |= self._evaluation(streams, prompts, encoder)
        card = train_ppo(self.model, streams, prompts, encoder, settings, self.out, **more)
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
        self.hub.push(self.out)

    def _stream(self, name: Literal["reward", "terminal"], folder: Path) -> Stream:
        how = {key: getattr(self, f"{name}_{key}") for key in ("coefficient", "clip", "centred")}
        penalties_only = name == "reward" and self.reward_penalties_only
        return Stream(name=name, reward=folder, terminal=name == "terminal", penalties_only=penalties_only, **how)

    def _evaluation(self, streams: Sequence[Stream], prompts: Sequence[PromptRow], encoder: Encoder) -> dict[str, Any]:
        """The evaluation, and what is noted of it."""
        if self.heldout is None or self.judge is None:
            raise ValueError("--heldout names the prompts, and --judge who compares the answers to them; give both")
        if not self.settings.evaluate_every:
            raise ValueError("--heldout is answered every --evaluate-every steps; give a number, a tenth of --steps")
        rows, (_, *judge) = read_prompts(self.heldout, **self.source.how), identity(self.judge)
        warnings = []
        if judge in [identity(str(stream.reward))[1:] for stream in streams]:
            warnings.append(
                f"the judge {self.judge} is a reward model that the policy learned from: its win rate rises with "
                "whatever that model is wrong about; give --judge another"
            )
        shared = {str(row.prompt) for row in rows} & {str(row.prompt) for row in prompts}
        if shared:
            warnings.append(
                f"{len(shared)} of the held-out prompts are also learned from; take them out of either file"
            )
        for words in warnings:
            console.print(words, highlight=False, soft_wrap=True)
        sampling = Sampling(
            max_new_tokens=self.settings.max_new_tokens, temperature=self.settings.temperature, seed=self.settings.seed
        )
        noted = {
            "judge": str(self.judge),
            "heldout_prompts": len(rows),
            "heldout_fingerprint": fingerprint_of(judge, [(row.id, row.prompt) for row in rows]),
            **({"warnings": warnings} if warnings else {}),
        }
        by = reward_judge(self.judge, encoder_of(self.judge))
        return {"evaluate": win_rate_over_start(self.model, rows, by, encoder, sampling), "noted": noted}
