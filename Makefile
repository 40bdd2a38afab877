# Each target sets up whatever it needs; doing it twice costs a second.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
# Keep freed memory: a small model otherwise spends a fifth of its time on page faults.
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000
export MALLOC_MMAP_THRESHOLD_ ?= 100000000000
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Empty is "write it": the tests start many processes, and each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE =
PYTEST := $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: demo test quick check docs bench clean starter real

demo: $(VENV)/.demo
	$(BIN)/errata demo $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python tests/ensure_browser.py
	$(PYTEST) $(TEST)

quick: $(VENV)/.dev
	$(PYTEST) -m 'not slow' $(TEST)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -p no:cacheprovider docs README.md --doctest-glob='*.md' --doctest-modules src/errata

docs: $(VENV)/.dev
	$(BIN)/pytest -q -p no:cacheprovider docs README.md --doctest-glob='*.md'

starter: $(VENV)/.starter
	$(BIN)/python recipes/starter.py --out models/starter

real: $(VENV)/.starter
	$(BIN)/python recipes/real.py $(if $(QUICK),--out runs/real-quick --rows 140 --max-new-tokens 64,--out runs/real)

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/offline.py --trl-environment $(VENV)-trl-offline
	$(BIN)/python benchmarks/offline.py --trl-environment $(VENV)-trl-offline --model models/starter --lora-rank 16 --files iterater --rows 16
	$(BIN)/python benchmarks/ppo.py --trl-environment $(VENV)-trl
	$(BIN)/python benchmarks/ppo.py --trl-environment $(VENV)-trl --vocabulary 32000

clean:
	rm -rf $(VENV) $(VENV)-trl $(VENV)-trl-offline runs build dist src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q --no-compile -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q --no-compile -c constraints.txt -e '.[check,test,parquet]'
	touch $@ $(VENV)/.demo

$(VENV)/.starter: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q --no-compile -c constraints.txt -e '.[gguf]'
	touch $@ $(VENV)/.demo
