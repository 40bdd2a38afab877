"""Processes that trained together end with the code that was asked for, whatever their threads still hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from errata.runs.leaving import leave

RANKS = """
import atexit, json, os, sys, time
import torch
import torch.distributed as dist
from errata.runs.leaving import leave

folder, code, trials = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found = []
for trial in range(trials):
    ranks = []
    for rank in (0, 1):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store{trial}", rank=rank, world_size=2)
            sys.kept = dist.group.WORLD  # as FSDP keeps it: destroying the group does not end its threads
            atexit.register(lambda: open(f"{folder}/at-exit", "a").write("x"))
            dist.all_reduce(torch.ones(4))
            if rank:
                time.sleep(0.05)  # rank 0 is at its end while its threads hold tensors and wait for rank 1
            works = [dist.all_reduce(torch.ones(4), async_op=True) for _ in range(4)]
            if rank or code:
                [work.wait() for work in works]
            del works
            leave(code)
    found += [os.waitpid(rank, 0)[1] for rank in ranks]
print(json.dumps([os.waitstatus_to_exitcode(status) for status in found]))
"""


@pytest.mark.parametrize(("code", "trials"), [(0, 10), (3, 1)])
def test_two_processes_end_with_the_code_that_was_asked_for(code: int, trials: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANKS, str(tmp_path), str(code), str(trials)]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [code] * 2 * trials, done.stderr
    assert (tmp_path / "at-exit").read_text() == "x" * 2 * trials


def test_a_process_alone_ends_as_usual() -> None:
    with pytest.raises(SystemExit) as stop:
        leave(4)
    assert stop.value.code == 4
