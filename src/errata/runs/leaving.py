"""The end of a process: one of several that trained together may not take its interpreter down as usual."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, NoReturn

__all__ = ["leave"]


def leave(code: int) -> NoReturn:
    """End this process with ``code``, as ``sys.exit`` does where it is alone.

    Where it is one of several (torchrun, accelerate), the interpreter is not taken down. The threads with which
    gloo talks to the others may still hold tensors, and one that lets go of a tensor while the interpreter ends
    kills the process: "terminate called without an active exception", though all is written
    (github.com/pytorch/pytorch/pull/179291). ``destroy_process_group`` ends these threads only if nothing
    else knows the group, and FSDP's meshes do.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        sys.exit(code)
    if code == 0:  # after a failure the others may wait for something else, or be gone
        distributed.barrier()
        distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
