# stalewise: everything from a bare clone. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RUN    := runs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format validate bench bench-train timelines figures clean clean-cache

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(READY) ## create .venv with the pinned versions

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "stalewise needs Python >= 3.11; say make PYTHON=python3.12"; exit 2; }
	@echo "installing into $(VENV) (once; PyTorch and Ray take a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: $(READY) ## the main job on a real trace: fit, plan, predict, simulate, train, report
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh $(RUN)

test: $(READY) ## the test suite
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup

lint: $(READY) ## style, types, import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

format: $(READY) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

validate: $(READY) ## tables of theory against simulation
	@$(BIN)/python validation/policies.py
	@$(BIN)/python validation/schedules.py
	@$(BIN)/python validation/dynamics.py
	@$(BIN)/python validation/half_step.py
	@$(BIN)/python validation/time_to_target.py
	@$(BIN)/python validation/fitting.py
	@$(BIN)/python validation/replay.py
	@$(BIN)/python validation/delays.py

bench: $(READY) ## measured speed beside peers, answers checked
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python benchmarks/events.py
	@$(BIN)/python benchmarks/sdde.py
	@$(BIN)/python benchmarks/readers.py 1000000
	@$(BIN)/python benchmarks/roots.py
	@$(BIN)/python benchmarks/search.py
	@$(BIN)/python benchmarks/virtual.py $(if $(MNIST),--data $(MNIST))

bench-train: $(READY) ## the training server beside Ray's pattern, a bare loop and Hogwild; MNIST=folder adds mnist-cnn
	@$(BIN)/python benchmarks/training.py $(if $(MNIST),--data $(MNIST))

timelines: $(READY) ## draw the pictures of docs/policies anew
	@$(BIN)/python docs/timelines.py

figures: $(READY) ## draw docs/figures anew, the source paper's claims (7 minutes); MNIST=folder adds MNIST
	@$(BIN)/python docs/figures.py $(MNIST)

clean-cache: ## remove what numba compiled
	find src tests -name '*.nbi' -delete -o -name '*.nbc' -delete

clean: ## remove the environment and the runs
	rm -rf $(VENV) runs
