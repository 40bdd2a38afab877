"""What the house says of itself: the order of imports, the dimension key, and modules that nothing hides."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import errata
import errata.types

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src/errata").rglob("*.py"))
MODULES = sorted(module.name for module in pkgutil.walk_packages(errata.__path__, "errata."))
PACKAGES = sorted({name.rpartition(".")[0] for name in MODULES if name.count(".") > 1})


def layers() -> list[str]:
    """From the lowest up."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["type"] == "layers")
    return [layer.removeprefix("errata.") for layer in reversed(contract["layers"])]


def test_contributing_states_the_order_of_imports_that_is_checked() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    start = text.index("- **Where things go.**")
    said = re.findall(r"`([a-z_]+)(?:\.py)?`", text[start : text.index("Losses are pure", start)])
    assert said == layers()


def test_every_folder_and_module_of_the_library_has_a_place_in_the_order() -> None:
    there = {name.split(".")[1] for name in MODULES}
    assert set(layers()) == there - {"__main__"}


def test_no_name_of_a_package_hides_a_module() -> None:
    """``import errata.tuning.figa as m`` gives what the package has under that name."""
    hidden = set()
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{package.__name__}.{module.name}"
            whole = importlib.import_module(name)
            if getattr(package, module.name) is not whole:
                hidden.add(name)
    assert hidden == set()


def test_no_file_is_longer_than_450_lines_and_no_class_than_250() -> None:
    files = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in files.items() if lines > 450} == {}
    classes = {
        f"{path.name} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: lines for name, lines in classes.items() if lines > 250} == {}


ABOUT_DPO = {
    "tuning/dpo.py",
    "tuning/__init__.py",
    "losses/direct_preference.py",
    "losses/__init__.py",
}


def test_only_files_that_are_about_dpo_name_it() -> None:
    """What else speaks of methods asks ``METHODS``."""
    package = ROOT / "src/errata"
    texts = [path for path in package.rglob("*") if path.suffix in (".py", ".j2", ".js", ".html", ".txt")]
    named = {str(path.relative_to(package)) for path in texts if re.search(r"(?i)\bdpo\b", path.read_text("utf-8"))}
    assert named == ABOUT_DPO


def suffixes() -> Iterator[tuple[str, str]]:
    """Every name of a tensor, and the letters at its end."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = {ast.Name: "id", ast.arg: "arg", ast.Attribute: "attr"}.get(type(node))
            found = name and re.fullmatch(r"[a-z]\w*_\d?([A-Z]{1,4})", getattr(node, name))
            if found and getattr(node, name) not in ("lora_A", "of_down_A"):  # names of peft's
                yield getattr(node, name), found.group(1)


def test_the_dimension_key_is_complete_and_has_no_letter_too_many() -> None:
    key = re.split(r"={4,}.*\n", errata.types.__doc__ or "")[1]
    rows = [line[:6].strip().split(", ") for line in key.splitlines()]
    known = {letter for row in rows for letter in row} | {"J"}  # which the last row has in its text
    used = {letter: name for name, letters in suffixes() for letter in letters}
    assert {letter: name for letter, name in used.items() if letter not in known} == {}
    assert known - used.keys() == {"J"}
