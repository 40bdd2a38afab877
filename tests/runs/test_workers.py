from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def pid_of(_: int) -> int:
    time.sleep(0.5)
    return os.getpid()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    program = tmp_path / "parent.py"
    program.write_text(
        f"import sys, time\nsys.path.insert(0, {tests!r})\n"
        "from runs.test_workers import pid_of\nfrom errata.runs.workers import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = worker_pool(2, len, ('x',))\n"
        "    print(*set(pool.map(pid_of, range(4))), flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    assert all(Path(f"/proc/{pid}").exists() for pid in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    waited = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < waited:
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
