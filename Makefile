# Lecture Lab. Every target is one `python -m lab` command with the same options.

.DEFAULT_GOAL := help
.PHONY: help setup list experiment report watch data test test-faults lint format bench compact tour doctor clean
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

# User text is data: taken literally, passed through the environment, and quoted by the shell.
# A plain $(NAME) would execute what it holds.
OPTIONS := NAME SCALE DATA MODEL SEEDS JOBS LIMIT BACKEND ENGINE LAUNCHER RAY_ADDRESS RESULTS KEEP_STALE UNTIL DRY PORT
define literal
ifneq ($$(origin $(1)),undefined)
override $(1) := $$(value $(1))
export $(1)
GIVEN += $(1)
endif
endef
$(foreach option,$(OPTIONS),$(eval $(call literal,$(option))))

# $(call pass,NAME DATA): the options among these that were given, as --name="$$NAME" --data="$$DATA"
lower = $(shell echo $(1) | tr A-Z_ a-z-)
pass = $(foreach option,$(filter $(1),$(GIVEN)),--$(call lower,$(option))="$$$(option)")

VENV := .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/.run-ready
JAX := $(VENV)/.jax-ready
RAY := $(VENV)/.ray-ready
DEV := $(VENV)/.dev-ready
BACKEND_READY := $(if $(filter-out jax,$(BACKEND)),,$(if $(BACKEND),$(JAX)))
LAUNCHER_READY := $(if $(filter-out ray,$(LAUNCHER)),,$(if $(LAUNCHER),$(RAY)))
PIP := $(PY) -m pip install -qq --disable-pip-version-check

help: ## the targets, one line each
	@trap '' PIPE; { \
	awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile; echo; \
	echo 'Options: NAME=batch_size [SCALE=quick] [DATA=digits] [MODEL=mlp] [SEEDS=10] [JOBS=2]'; \
	echo '         [BACKEND=tensorflow] [ENGINE=plain] [LIMIT=600] [RESULTS=results] [KEEP_STALE=1] [DRY=1]'; \
	echo '         [UNTIL=decided]'; \
	echo '         [LAUNCHER=ray] [RAY_ADDRESS=host:6379]'; } 2>/dev/null || true

setup: $(RUN) ## build .venv from the pinned requirements (every other target does it if missing)

list: $(RUN) ## every experiment, its claims and their last verdicts
	@$(PY) -m lab list $(call pass,RESULTS)

experiment: $(RUN) $(BACKEND_READY) $(LAUNCHER_READY) ## run what is missing of NAME=..., print verdicts, leave CSV and a page
	@$(PY) -m lab experiment --name="$$NAME" $(call pass,$(filter-out NAME PORT,$(OPTIONS)))

report: $(RUN) ## rebuild every table, figure and page from the CSV files alone
	@$(PY) -m lab report $(call pass,RESULTS)

watch: $(RUN) ## serve the page while experiments run, on this machine only
	@$(PY) -m lab watch $(call pass,RESULTS PORT)

data: $(RUN) ## download and prepare DATA=... with TensorFlow Datasets
	@$(PY) -m lab data --data="$$DATA"

test: $(DEV) ## the tests, on TensorFlow and (what is its own) on JAX
	@tests/run $(PY)

test-faults: $(DEV) ## kills, crashes, Ctrl-C and hostile text, hundreds of times, and Keras's own tests: an hour
	@tests/run $(PY) faults

lint: $(DEV) ## ruff and mypy
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

format: $(DEV) ## ruff format, and the fixes it is sure of
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format .

bench: $(RUN) $(JAX) ## time plain, fused, hand-written loop and PyTorch side by side, 12 minutes
	@$(PY) -m lab.bench $(call pass,RESULTS)

compact: $(RUN) ## compress the trials' files in RESULTS=...; they are read as before
	@$(PY) -m lab compact $(call pass,RESULTS)

tour: $(DEV) ## execute docs/tour.ipynb again and save its outputs, half a minute
	@$(PY) -m docs.tour

doctor: $(RUN) ## what this machine has, and what is wrong with it
	@$(PY) -m lab doctor $(call pass,RESULTS)

clean: ## remove .venv and caches; results are never touched
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'Removed .venv and caches. Results are kept: remove results/<experiment> by hand.'

$(PY):
	@python=$$(for p in $$PYTHON python3 python3.13 python3.12 python3.11 python3.10 python; do \
	  command -v "$$p" >/dev/null && "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	  && echo "$$p" && break; done); \
	[ -n "$$python" ] || { echo 'Needs Python 3.10 to 3.13; none was found. Install one, or give it: make PYTHON=/path/to/python3.12'; exit 1; }; \
	echo "First time here: building .venv with $$("$$python" --version). Nothing outside this folder is changed."; \
	"$$python" -m venv $(VENV) || { echo 'Python cannot make virtual environments. On Debian: apt install python3-venv'; rm -rf $(VENV); exit 1; }

$(RUN): requirements/run.txt | $(PY)
	@echo 'Installing TensorFlow, Keras and what goes with them: 1 to 3 minutes, once ...'
	@$(PIP) --no-deps -r requirements/run.txt
	@touch $@

$(JAX): requirements/jax.txt $(RUN)
	@echo 'Installing JAX: half a minute, once ...'
	@$(PIP) --no-deps -r requirements/jax.txt
	@touch $@

$(RAY): requirements/ray.txt $(RUN)
	@echo 'Installing Ray: a quarter of a minute, once ...'
	@$(PIP) --no-deps -r requirements/ray.txt
	@touch $@

$(DEV): requirements/dev.txt $(JAX) $(RAY)
	@echo 'Installing the test tools: half a minute, once ...'
	@$(PIP) --no-deps -r requirements/dev.txt
	@touch $@
