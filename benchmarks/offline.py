"""Training on corrections beside its peer: pairs a second and memory of whole training steps, errata's and TRL's.

Every contender trains the same model (a small Llama, random weights) on the same rows in the same batches, through its
own library's trainer: loading of data, forward, backward, clipping and optimizer. Each measurement is a process of its
own, and contenders take turns within a round. Seconds belong to a machine, ratios travel. With one thread they are
CPU seconds, which hardly see what else the machine does.

    python benchmarks/offline.py --rows 64 --rounds 3 --out offline.json --markdown
    python benchmarks/offline.py --model models/starter --lora-rank 16 --trl-environment .venv-trl-offline

With ``--model`` it is a real model in place of the small one, trained with an adapter.

Both libraries train with Hugging Face's Trainer, so one callback measures both: seconds from the start of training to
the end of the last optimizer step, saving left out. What is done once beforehand (loading the model, tokenising,
labelling, trying out a layout) is left out on both sides; scoring the reference of errata's DPO is not, since TRL does
it in every step. TRL is given its fastest settings on a CPU: no gradient checkpointing, which it has by default, no
bfloat16, no evaluation. Every process inherits the environment: with the settings of malloc in the Makefile, which keep
freed memory, whoever allocates much is a good deal faster.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import geometric_mean, median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scale import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from transformers import trainer as transformers_trainer
from transformers.utils import logging as transformers_logging

from errata.data import Encoder, read_corrections, write_rows
from errata.data.encoding import load_encoder
from errata.labels import label_all
from errata.models import load_causal, logprobs, save_model
from errata.reward import TokenRewardConfig, encode_pair, train_token_reward
from errata.runs import new_file
from errata.tuning import DPOConfig, FIGAConfig, SFTConfig, demonstrations, train_dpo, train_figa, train_sft
from errata.types import Correction

SHARED = Path(__file__).parents[2] / "shared" / "data"
FILES = {
    "summedits": "summedits_sales",
    "fgrlhf": "fgrlhf_edits_spans",
    "iterater": "iterater_train",
    "mlqe": "mlqe_pe_ro-en_et-en_dev",
    "cad_imdb": "cad_imdb_train",
}
FOUR = ("summedits", "fgrlhf", "iterater", "mlqe")
TEMPLATE = "{prompt}\n"
RATE = 1e-2  # high, so that a few steps tell two losses apart
LORA_RATE = 2e-4  # the one that a real model learns with
NEVER = 10**9
Measured = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement, as the process that does it is told."""

    contender: str
    data: str
    """File of corrections."""
    model: str
    """Folder of the model that everybody starts from."""
    work: str
    """Folder that the process may fill."""
    batch_size: int
    max_length: int
    bf16: bool
    trl_fast: bool
    lora_rank: int
    """0 trains all weights."""
    every_loss: bool
    """Note the loss of every step; only where time does not matter."""


def errata_figa(
    job: Job, rows: list[Correction], encoder: Encoder, *, kept: float, layout: str, layers: int = 0, passes: int = 1
) -> int:
    if layout == "textbook":
        logprobs.finish_of, layout = unknown, "plain"
    more = {"lora_layers": layers, "epochs": passes}
    config = FIGAConfig(kept_weight=kept, layout=layout, **{**common(job), **more})
    train_figa(job.model, list(label_all(rows, encoder)), encoder, config, Path(job.work) / "out")
    return passes


def unknown(model: Any) -> None:
    """The whole vocabulary at every place, as a model gives it: nothing is assumed of what it does with its logits."""


def errata_reward(job: Job, rows: list[Correction], encoder: Encoder, *, layout: str) -> None:
    config = TokenRewardConfig(layout=layout, **common(job))
    train_token_reward(job.model, list(label_all(rows, encoder)), encoder, config, Path(job.work) / "out")


def errata_sft(job: Job, rows: list[Correction], encoder: Encoder) -> None:
    train_sft(job.model, demonstrations(rows), encoder, SFTConfig(**common(job)), Path(job.work) / "out")


def errata_dpo(job: Job, rows: list[Correction], encoder: Encoder) -> None:
    train_dpo(job.model, rows, encoder, DPOConfig(**common(job)), Path(job.work) / "out")


def common(job: Job) -> dict[str, Any]:
    """What errata's configs have in common here."""
    batch = {"batch_size": job.batch_size, "micro_batch_size": job.batch_size}
    adapter = {"learning_rate": LORA_RATE, "lora_rank": job.lora_rank} if job.lora_rank else {"learning_rate": RATE}
    return {**batch, **adapter, "epochs": 1, "dtype": "bfloat16" if job.bf16 else "auto", "save_every": NEVER}


def trl_sft(job: Job, rows: list[Correction], encoder: Encoder) -> None:
    from trl import SFTConfig, SFTTrainer

    texts = [{"prompt": text_of(row, encoder), "completion": row.edited} for row in rows]
    # Without completion_only_loss it trains on prompts, too, in silence, where rows come as ids.
    settings = SFTConfig(
        completion_only_loss=True,
        padding_free=job.trl_fast and find_spec("flash_attn") is not None,  # its DPO pads in any case
        **trl_settings(job),
    )
    train_trl(SFTTrainer, settings, job, texts, encoder)


def trl_dpo(job: Job, rows: list[Correction], encoder: Encoder) -> None:
    from trl import DPOConfig, DPOTrainer

    texts = [{"prompt": text_of(row, encoder), "chosen": row.edited, "rejected": row.original} for row in rows]
    train_trl(DPOTrainer, DPOConfig(beta=0.1, **trl_settings(job)), job, texts, encoder)


def trl_settings(job: Job) -> dict[str, Any]:
    """The fastest that is sensible, and for the rest what errata has."""
    return {
        "output_dir": job.work,
        "per_device_train_batch_size": job.batch_size,
        "num_train_epochs": 1,
        "learning_rate": LORA_RATE if job.lora_rank else RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "max_length": job.max_length,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": job.bf16,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_liger_kernel": job.trl_fast and find_spec("liger_kernel") is not None,
    }


def train_trl(trainer: Any, settings: Any, job: Job, texts: list[dict[str, str]], encoder: Encoder) -> None:
    """Train with one of TRL's trainers, on the rows in the order in which errata takes them."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    data: Any = Dataset.from_list([texts[k] for k in order])
    model: Any = load_causal(job.model)
    if settings.padding_free:
        model.set_attn_implementation("flash_attention_2")
    adapter = None
    if job.lora_rank:
        from peft import LoraConfig

        adapter = LoraConfig(
            r=job.lora_rank,
            lora_alpha=2 * job.lora_rank,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(0)
    trainer(
        model=model, args=settings, train_dataset=data, processing_class=encoder.tokenizer, peft_config=adapter
    ).train()


UPPER = "FIGA, kept .5, upper 8 layers"
"""Three passes; with an adapter on these layers only, what the others give is kept from the first one."""
CONTENDERS: Mapping[str, Callable[[Job, list[Correction], Encoder], int | None]] = {
    "FIGA, kept 0, textbook": lambda *a: errata_figa(*a, kept=0.0, layout="textbook"),
    "FIGA, kept 0, plain": lambda *a: errata_figa(*a, kept=0.0, layout="plain"),
    "FIGA, kept 0": lambda *a: errata_figa(*a, kept=0.0, layout="auto"),
    "FIGA, kept .5, plain": lambda *a: errata_figa(*a, kept=0.5, layout="plain"),
    "FIGA, kept .5": lambda *a: errata_figa(*a, kept=0.5, layout="auto"),
    UPPER: lambda *a: errata_figa(*a, kept=0.5, layout="auto", layers=8 if a[0].lora_rank else 0, passes=3),
    "token reward, plain": lambda *a: errata_reward(*a, layout="plain"),
    "token reward": lambda *a: errata_reward(*a, layout="auto"),
    "SFT": errata_sft,
    "DPO": errata_dpo,
    "TRL SFT": trl_sft,
    "TRL DPO": trl_dpo,
}
REAL = ("SFT", "FIGA, kept .5", UPPER, "DPO", "TRL SFT", "TRL DPO")
"""Contenders on a real model."""
SAME = {"SFT": "TRL SFT", "DPO": "TRL DPO"}
"""Contenders that must have the same losses."""
SAME_LOSS = 1e-4
"""How far apart they may be, in nats."""


class Target(NamedTuple):
    """What the issue asks of one contender against another: at least so many times as good."""

    better: str
    worse: str
    what: str
    at_least: float
    files: tuple[str, ...]


TARGETS = (
    Target("FIGA, kept 0", "FIGA, kept 0, textbook", "pairs_per_second", 4.0, FOUR),
    Target("FIGA, kept 0", "FIGA, kept 0, plain", "pairs_per_second", 4.0, FOUR),
    Target("FIGA, kept 0", "FIGA, kept 0, plain", "pairs_per_second", 2.5, ("cad_imdb",)),
    Target("FIGA, kept 0", "FIGA, kept 0, plain", "activation_bytes", 3.0, FOUR),
    Target("FIGA, kept 0", "TRL SFT", "pairs_per_second", 4.0, FOUR),
    Target("FIGA, kept 0", "TRL DPO", "pairs_per_second", 10.0, FOUR),
    Target("FIGA, kept .5", "FIGA, kept .5, plain", "pairs_per_second", 2.0, FOUR),
    Target("DPO", "TRL DPO", "pairs_per_second", 4.0, FOUR),
    Target("token reward", "token reward, plain", "pairs_per_second", 1.4, FOUR),
)


REAL_TARGETS = (
    Target(UPPER, "FIGA, kept .5", "pairs_per_second", 2.5, FOUR),
    Target(UPPER, "FIGA, kept .5", "later_pairs_per_second", 2.5, FOUR),
    Target("FIGA, kept .5", "TRL SFT", "pairs_per_second", 1.5, FOUR),
    Target("FIGA, kept .5", "TRL DPO", "pairs_per_second", 4.0, FOUR),
    Target("SFT", "TRL SFT", "pairs_per_second", 1.0, FOUR),
    Target("DPO", "TRL DPO", "pairs_per_second", 1.0, FOUR),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Pairs a second and memory of whole training steps, errata's and TRL's."""

    model: Path | None = None
    """Folder of a real model with a chat template, to be trained in place of the small one; left out if missing."""
    lora_rank: int = 0
    """Train an adapter of this rank; 0 trains all weights."""
    corrections: Path | None = None
    """A file of corrections in place of the shared ones."""
    trl_environment: Path | None = None
    """An environment with TRL, which is made if missing; else TRL takes part where it is installed."""
    shared: Path = SHARED
    """Folder of the files of corrections."""
    files: tuple[str, ...] = tuple(FILES)
    """Which of the files."""
    only: tuple[str, ...] = ()
    """Which contenders; on a real model those that are trained on one, else all others."""
    rows: int = 24
    """Rows of each file, drawn at random; two steps of them or more, for the first one has no optimizer states yet."""
    rounds: int = 1
    """How often everything is measured."""
    batch_size: int = 8
    """Rows of an optimizer step."""
    max_length: int = 1024
    """Rows with a longer side are left out, in tokens."""
    hidden_size: int = 256
    """Width of the model; its MLP is 2.7 times as wide, a head has 64."""
    layers: int = 4
    """Layers of the model."""
    vocabulary: int = 32_000
    """Size of the model's vocabulary; the tokenizer may have fewer pieces."""
    bf16: bool = False
    """Compute in bfloat16."""
    trl_fast: bool = False
    """Give TRL Liger's kernels and its SFT batches without padding, where liger_kernel and flash_attn are there."""
    losses: bool = True
    """See first whether TRL's losses are errata's."""
    markdown: bool = False
    """Print the tables as Markdown."""
    out: Path | None = None
    """Write the figures here as JSON, too."""


def main() -> None:
    """Measure, print and, if asked to, write."""
    settings = tyro.cli(Settings)
    if settings.model is not None and not settings.model.exists():
        print(f"Left out: there is no model in {settings.model}.")
        return
    if settings.corrections is not None:
        settings = replace(settings, files=(settings.corrections.name.split(".")[0],))
    if not settings.only:
        settings = replace(
            settings, only=REAL if settings.model else tuple(name for name in CONTENDERS if name != UPPER)
        )
    known_files = settings.files if settings.corrections else FILES
    for given, known in ((settings.files, known_files), (settings.only, CONTENDERS)):
        if unknown := set(given) - set(known):
            raise SystemExit(f"{', '.join(sorted(unknown))}: there is only {'; '.join(known)}")
    if settings.rows < 2 * settings.batch_size:
        raise SystemExit(f"{settings.rows} rows are not two batches of {settings.batch_size}; raise --rows")
    missing = [name for name in settings.files if not path_of(settings, name).exists()]
    if missing:
        print(f"Left out, for they are not in {settings.shared}: {', '.join(missing)}")
    if len(missing) == len(settings.files):
        return
    with TemporaryDirectory() as folder:
        rows, counts = prepare(settings, Path(folder))
        report = {
            "rows": counts,
            "losses": same_losses(settings, Path(folder), next(iter(rows))) if settings.losses else {},
            "measured": measure_all(settings, Path(folder), rows),
            "settings": json.loads(json.dumps(asdict(settings), default=str)),
            "machine": machine(),
        }
    print_report(report, markdown=settings.markdown)
    if settings.out is not None:
        with new_file(settings.out) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1) + "\n")


def path_of(settings: Settings, name: str) -> Path:
    return settings.corrections or settings.shared / f"{FILES[name]}.jsonl.gz"


def text_of(row: Correction, encoder: Encoder) -> str:
    """The prompt as text, as errata has it: by the plain template of the small model, or the model's chat template."""
    if encoder.template != "chat":
        return TEMPLATE.replace("{prompt}", str(row.prompt))
    messages = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else list(row.prompt)
    return str(encoder.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def built_model(settings: Settings, everything: Sequence[Correction], folder: Path) -> Encoder:
    """Write the small model, whose tokenizer learns from the rows."""
    prompts = [
        Correction(id="", prompt="", original=text, edited="") for text in {str(row.prompt) for row in everything}
    ]
    tokenizer = make_tokenizer([*everything, *prompts], vocab_size=settings.vocabulary)
    tokenizer.pad_token = tokenizer.eos_token
    encoder = Encoder(tokenizer, template=TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=round(settings.hidden_size * 43 / 16),
        num_hidden_layers=settings.layers,
        num_attention_heads=max(1, settings.hidden_size // 64),
        max_position_embeddings=2 * settings.max_length,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.pad_id,
    )
    save_model(LlamaForCausalLM(config), tokenizer, folder / "model")
    return encoder


def prepare(settings: Settings, folder: Path) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Write tokenizer, model and rows; returns the names of the files and what became of their rows.

    TRL tokenises a prompt and its answer as one text: a row in which this gives other ids is left out.
    """
    found = {
        name: read_corrections(path_of(settings, name), empty_texts="keep")
        for name in settings.files
        if path_of(settings, name).exists()
    }
    everything = [row for rows in found.values() for row in rows]
    encoder = (
        load_encoder(settings.model, template="chat") if settings.model else built_model(settings, everything, folder)
    )
    tokenizer = encoder.tokenizer
    counts = {}
    for name, rows in found.items():
        usable, count = [], dict.fromkeys(("read", "unchanged or empty", "too long", "joined to other tokens"), 0)
        for row in rows:
            count["read"] += 1
            if not row.edited or not row.original or row.edited == row.original:
                count["unchanged or empty"] += 1
                continue
            pair = encode_pair(row, encoder)
            joined = [text_of(row, encoder) + text + str(tokenizer.eos_token) for text in (row.edited, row.original)]
            if max(len(side.ids) for side in pair) > settings.max_length:
                count["too long"] += 1
            elif tokenizer(joined)["input_ids"] != [list(side.ids) for side in pair]:
                count["joined to other tokens"] += 1
            else:
                usable.append(row)
        chosen = Random(0).sample(usable, min(settings.rows, len(usable)))
        write_rows(folder / f"{name}.jsonl", chosen)
        counts[name] = {**count, "used": len(chosen)}
    return list(found), counts


def same_losses(settings: Settings, folder: Path, name: str) -> dict[str, dict[str, float]]:
    """The largest differences from TRL's loss and gradient norm in any step; and how far the loss went meanwhile."""
    if not has_trl(settings):
        print("TRL is not installed: nothing to compare losses with.")
        return {}
    differences = {}
    for ours, theirs in SAME.items():
        one, other = (run(settings, folder, name, contender, every_loss=True)["logs"] for contender in (ours, theirs))
        differences[ours] = {
            key: max(abs(a[key] - b[key]) for a, b in zip(one, other, strict=True)) for key in ("loss", "grad_norm")
        }
        differences[ours]["moved"] = max(abs(a["loss"] - one[0]["loss"]) for a in one)
    return differences


def measure_all(settings: Settings, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Measured]]:
    """By file and contender: medians over the rounds, in which all contenders take turns."""
    contenders = [name for name in settings.only if has_trl(settings) or not name.startswith("TRL")]
    if left_out := set(settings.only) - set(contenders):
        print(f"Left out, for trl is not installed: {', '.join(sorted(left_out))}. Give --trl-environment.")
    every: dict[tuple[str, str], list[Measured]] = {}
    for number in range(settings.rounds):
        for name in names:
            for contender in contenders:
                found = run(settings, folder, name, contender)
                every.setdefault((name, contender), []).append(found)
                print(f"round {number + 1}: {name}, {contender}: {found['seconds']:.1f} s", file=sys.stderr)
    keys = ("seconds", "pairs_per_second", "later_pairs_per_second", "activation_bytes", "peak_bytes")
    return {
        name: {c: {key: median(one[key] for one in every[name, c]) for key in keys} for c in contenders}
        for name in names
    }


def run(settings: Settings, folder: Path, name: str, contender: str, *, every_loss: bool = False) -> Measured:
    """One measurement in a process of its own."""
    with TemporaryDirectory(dir=folder) as work:
        job = Job(
            contender=contender,
            data=str(folder / f"{name}.jsonl"),
            model=str((settings.model or folder / "model").absolute()),
            work=work,
            batch_size=settings.batch_size,
            max_length=settings.max_length,
            bf16=settings.bf16,
            trl_fast=settings.trl_fast,
            lora_rank=settings.lora_rank,
            every_loss=every_loss,
        )
        told = Path(work) / "job.json"
        told.write_text(json.dumps(asdict(job)))
        start(told, python_of(settings, contender))
        found: Measured = json.loads((Path(work) / "found.json").read_text())
    return found


def has_trl(settings: Settings) -> bool:
    return settings.trl_environment is not None or find_spec("trl") is not None


def python_of(settings: Settings, contender: str) -> str:
    """The Python of a contender: TRL's environment, made where it is missing with the versions of everything else."""
    if settings.trl_environment is None or not contender.startswith("TRL"):
        return sys.executable
    environment, root = settings.trl_environment.absolute(), Path(__file__).parents[1]
    python = environment / "bin" / "python"
    if not (environment / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pins = ["-c", str(root / "constraints.txt")]
        subprocess.run([python, "-m", "pip", "install", "-q", *pins, "-e", f"{root}[bench]"], check=True)
        (environment / "done").touch()
    return str(python)


def start(told: Path, python: str) -> None:
    """A process that does one measurement, and nothing else."""
    done = subprocess.run(
        [python, __file__, "--one", told],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"a measurement failed: {told.read_text()}\n{done.stdout}")


def measure(told: Path) -> None:
    """Do one measurement; what was found is written beside its job."""
    job = Job(**json.loads(told.read_text()))
    transformers_logging.disable_progress_bar()
    watch = Watch(every_loss=job.every_loss)
    transformers_trainer.DEFAULT_CALLBACKS.append(watch)
    reference = Timed(import_module("errata.training.method"), "with_reference")
    rows = read_corrections(Path(job.data), empty_texts="keep")
    real = not Path(job.model).is_relative_to(told.parents[1])
    encoder = load_encoder(job.model, template="chat" if real else TEMPLATE)
    passes = CONTENDERS[job.contender](job, rows, encoder) or 1
    seconds = watch.seconds + reference.seconds
    first_pass = watch.ends[len(watch.ends) // passes - 1]
    found = {
        "seconds": seconds,
        "pairs_per_second": passes * len(rows) / seconds,
        "later_pairs_per_second": (passes - 1) * len(rows) / (watch.seconds - first_pass) if passes > 1 else 0.0,
        "activation_bytes": max(watch.peak - watch.before, 1),
        "peak_bytes": watch.peak,
        "logs": watch.logs,
    }
    (told.parent / "found.json").write_text(json.dumps(found))


class Timed:
    """Adds up the seconds that a function of a module takes."""

    def __init__(self, module: Any, name: str) -> None:
        self.seconds, self.call = 0.0, getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = clock()
        result = self.call(*args, **kwargs)
        self.seconds += clock() - started
        return result


class Watch(TrainerCallback):
    """Seconds and memory of the steps of a Trainer, whoever drives it.

    Activation memory is the most memory while training less what is there before the first forward pass, AdamW's two
    states counted in: activations, logits and gradients.
    """

    def __init__(self, *, every_loss: bool) -> None:
        self.every_loss = every_loss
        self.logs: list[dict[str, float]] = []
        self.before = self.most = self.peak = 0
        self.seconds = 0.0
        self.ends: list[float] = []
        self.ended = threading.Event()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.every_loss:
            state.logging_steps = 1
        # A pass of two tokens brings in what is loaded only when it is needed.
        model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=args.device)).logits.float().sum().backward()
        model.zero_grad()
        give_back()
        states = sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        self.before = memory() + states
        threading.Thread(target=self.sample, daemon=True).start()
        self.started = clock()

    def sample(self) -> None:
        while not self.ended.wait(0.002):
            self.most = max(self.most, memory(most=True))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = clock() - self.started
        self.ends.append(self.seconds)
        self.peak = self.most = max(self.most, memory(most=True))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended.set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.logs.append({key: float(logs[key]) for key in ("loss", "grad_norm")})


def clock() -> float:
    """Seconds; of the CPU where one thread computes, else on the wall."""
    one = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if one else time.perf_counter()


def memory(*, most: bool = False) -> int:
    """Bytes that this process holds: on the GPU where there is one (with ``most``, at most so far), else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return freed memory to the system, which the settings of the Makefile keep."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def machine() -> str:
    """What the seconds belong to."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    trl = f", trl {version('trl')}" if find_spec("trl") else ""
    malloc = "kept by malloc" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "given back by malloc"
    libraries = f"torch {torch.__version__}, transformers {version('transformers')}{trl}"
    seconds = "seconds of CPU" if name == "1 threads" else "seconds on the wall"
    return f"{name}, {seconds}, {libraries}, {platform.machine()}, freed memory {malloc}"


def print_report(report: Mapping[str, Any], *, markdown: bool) -> None:
    """Figures by contender and file, then the targets."""
    measured, settings = report["measured"], report["settings"]
    names = list(measured)
    contenders = list(measured[names[0]])

    def show(*lines: Sequence[str]) -> None:
        if markdown:
            for line in (lines[0], ["---"] * len(lines[0]), *lines[1:]):
                print(f"| {' | '.join(line)} |")
        else:
            table = Table(*lines[0], box=None, header_style="bold")
            for line in lines[1:]:
                table.add_row(*line)
            Console(highlight=False).print(table)
        print()

    for title, key, form in (
        ("pairs a second", "pairs_per_second", lambda x: f"{x:.2f}"),
        ("activations and gradients, MiB", "activation_bytes", lambda x: f"{x / 2**20:,.0f}"),
        ("peak memory of the process, MiB", "peak_bytes", lambda x: f"{x / 2**20:,.0f}"),
    ):
        show([title, *names], *([c, *(form(measured[name][c][key]) for name in names)] for c in contenders))
    lines = []
    for target in REAL_TARGETS if settings.get("model") else TARGETS:
        counted = [name for name in target.files if name in names] or ([] if set(names) & set(FILES) else names)
        if counted and {target.better, target.worse} <= set(contenders):
            ratios = {name: ratio(target, measured[name]) for name in names}
            mean = geometric_mean(ratios[name] for name in counted)
            named = {"pairs_per_second": "", "later_pairs_per_second": "from the second pass on: "}
            what = named.get(target.what, "memory: ")
            where = "" if target.files == FOUR else f", on {', '.join(target.files)}"
            lines.append(
                [
                    f"{what}{target.better} / {target.worse}{where}",
                    *(f"{value:.2f}" for value in ratios.values()),
                    f"{mean:.2f}",
                    f"≥ {target.at_least:g}",
                    "met" if mean >= target.at_least else "missed",
                ]
            )
    show(["times as good", *names, "mean", "target", ""], *lines)
    for what, difference in report["losses"].items():
        same = "the same loss" if difference["loss"] <= SAME_LOSS else "NOT the same loss"
        print(
            f"{what}: {same} as TRL's in every step, {difference['loss']:.1e} apart at most, gradient norms "
            f"{difference['grad_norm']:.1e}; the loss changed by {difference['moved']:.1e}."
        )
    print(f"Means are geometric, over {', '.join(FOUR)} where nothing else is said.")
    for name, count in report["rows"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in count.items()))
    small = f"hidden {settings['hidden_size']}, {settings['layers']} layers, vocabulary {settings['vocabulary']:,}"
    trained = f"all weights of {settings.get('model') or small}"
    if settings.get("lora_rank"):
        trained = trained.replace("all weights", f"an adapter of rank {settings['lora_rank']}")
    print(
        f"Medians of {settings['rounds']} round(s), batches of {settings['batch_size']} rows, {trained}; "
        f"{report['machine']}."
    )


def ratio(target: Target, measured: Mapping[str, Measured]) -> float:
    """How many times as good: faster, or smaller."""
    better, worse = measured[target.better][target.what], measured[target.worse][target.what.removeprefix("later_")]
    return float(better / worse if target.what.endswith("pairs_per_second") else worse / better)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(Path(sys.argv[2]))
    else:
        main()
