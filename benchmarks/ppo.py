"""Samples a second of a whole PPO step (generate, score, update) beside TRL 1.12.0's PPOTrainer, in one job.

    python benchmarks/ppo.py --trl-environment .venv-trl

TRL 1.12.0 cannot stand beside the TRL of the other benchmarks, so it is installed in an environment of its own, which
is made where it is missing. Both sides: the same tiny Llama as policy, reference, critic and reward model, 24 tokens of
prompt and 64 sampled ones (no end is ever drawn), 64 samples a step, one minibatch, two passes, float32, the same
number of threads; with one, pinned to a core. Each side is a process of its own; they take turns. Reported are the
median step, on the wall and in CPU seconds, and the peak memory of the process. malloc matters: the Makefile lets it
keep freed memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

PROMPT, SAMPLES, EPOCHS = 24, 64, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--trl-environment", type=Path, help="of trl==1.12.0, made if missing; without it errata is alone"
    )
    parser.add_argument("--trl-python", type=Path, help="a Python that has it, instead")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--response", type=int, default=64, help="tokens to sample")
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one that warms up")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        if given.threads == 1 and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clocks = {"errata": errata_side, "trl": trl_side}[given.side](
            Path(given.folder), given.steps + 1, given.response
        )
        seconds, cpu_seconds = (
            [after - before for before, after in pairwise(each)] for each in zip(*clocks, strict=True)
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps({"seconds": seconds[1:], "cpu_seconds": cpu_seconds[1:], "peak_mib": peak}))
        return
    other = given.trl_python or (given.trl_environment and trl_python(given.trl_environment))
    sides = {"errata": sys.executable, **({"trl": str(other)} if other else {})}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), given.vocabulary, given.response)
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(given.turns):
            for side, python in sides.items():
                found[side].append(run(side, python, folder, given))
    report = {}
    for side, turns in found.items():
        step, cpu = (
            statistics.median(each for turn in turns for each in turn[name]) for name in ("seconds", "cpu_seconds")
        )
        peak = max(turn["peak_mib"] for turn in turns)
        report[side] = {"seconds": step, "cpu_seconds": cpu, "samples_per_second": SAMPLES / step, "peak_mib": peak}
        print(
            f"{side:7} {step:7.3f} s a step, {cpu:7.3f} s of CPU  {SAMPLES / step:7.1f} samples a second"
            f"  peak {peak:7.0f} MiB"
        )
    if "trl" in report:
        times = {name: report["trl"][name] / report["errata"][name] for name in report["trl"]}
        print(
            f"errata / trl: {times['seconds']:.2f} times, {times['cpu_seconds']:.2f} by CPU seconds; "
            f"memory {1 / times['peak_mib']:.2f}"
        )
    print(json.dumps({"vocabulary": given.vocabulary, "response": given.response, "threads": given.threads, **report}))


def trl_python(environment: Path) -> Path:
    """The Python of an environment with TRL 1.12.0, and for the rest with the versions that errata has."""
    python = environment / "bin" / "python"
    if not (environment / "done").exists():
        pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        rest = environment / "constraints.txt"
        rest.write_text("\n".join(pin for pin in pins if not pin.startswith("trl==")) + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", rest, "trl==1.12.0"], check=True)
        (environment / "done").touch()
    return python


def run(side: str, python: str, folder: str, given: argparse.Namespace) -> dict[str, Any]:
    threads = str(given.threads)
    command = [python, __file__, "--side", side, "--folder", folder, "--steps", str(given.steps)]
    command += ["--response", str(given.response)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def build(folder: Path, vocabulary: int, response: int) -> None:
    """Policy and scalar model; pad and end of sequence are ids that the models cannot draw."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification, PreTrainedTokenizerFast

    words = [*(f"w{k}" for k in range(vocabulary)), "<pad>", "</s>"]
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="w0", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=PROMPT + response + 8,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "policy")
    LlamaForTokenClassification(config).save_pretrained(folder / "token")
    for name in ("policy", "token"):
        tokenizer.save_pretrained(folder / name)


def clock() -> tuple[float, float]:
    """Seconds on the wall, and of this process on all its cores: the second hardly sees what else the machine does."""
    return time.perf_counter(), time.process_time()


def prompt_ids(count: int) -> list[list[int]]:
    return [[(31 * k + 7 * j) % 500 for j in range(PROMPT)] for k in range(count)]


def errata_side(folder: Path, steps: int, response: int) -> list[tuple[float, float]]:
    from errata.data.encoding import load_encoder
    from errata.models import load_token_reward_model
    from errata.reward import TokenScorer
    from errata.tuning import PPOConfig, Stream
    from errata.tuning.ppo import Run
    from errata.types import PromptRow

    encoder = load_encoder(folder / "policy", template="{prompt}")
    prompts = [
        PromptRow(id=str(k), prompt=" ".join(f"w{token}" for token in ids)) for k, ids in enumerate(prompt_ids(256))
    ]
    assert {len(encoder.prompt_ids(row.prompt)) for row in prompts} == {PROMPT}
    config = PPOConfig(
        rollouts_per_step=SAMPLES, minibatch_size=SAMPLES, optimisation_epochs=EPOCHS, max_new_tokens=response
    )
    scorer = TokenScorer(load_token_reward_model(folder / "token").eval(), encoder.pad_id, level_is_free=False)
    streams = [Stream(name="reward", reward=scorer)]
    run = Run(folder / "policy", streams, prompts, encoder, config, critic=folder / "token")
    clocks = [clock()]
    for step in range(steps):
        run.round(step)
        clocks.append(clock())
    return clocks


def trl_side(folder: Path, steps: int, response: int) -> list[tuple[float, float]]:
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.times.append(clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(clock())

    clocks = Clock()
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1) for _ in range(2)
    )
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=SAMPLES,
            gradient_accumulation_steps=1,
            num_mini_batches=1,
            num_ppo_epochs=EPOCHS,
            total_episodes=SAMPLES * steps,
            response_length=response,
            local_rollout_forward_batch_size=SAMPLES,
            learning_rate=1e-5,
            temperature=1.0,
            gamma=0.5,
            kl_coef=0.1,
            num_sample_generations=0,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            # Its default trades time for memory; errata's does not.
            gradient_checkpointing=False,
        ),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompt_ids(256)]),
        callbacks=[clocks],
    )
    trainer.train()
    return clocks.times


if __name__ == "__main__":
    main()
