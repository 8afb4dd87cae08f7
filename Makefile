# Every target makes the virtual environment it needs; the only requirements are Python 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Nx and Turborepo in the versions that the planner is compared with: once a machine, outside of the checkout.
AGREEMENT := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/deltaci/agreement
# What GitHub publishes of its API and its webhooks, which the tests in tests/forge are held against: likewise.
FACTS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/deltaci/facts

.PHONY: demo test agreement facts explore faults soak lint format bench docs simulate lock clean
.DEFAULT_GOAL := test

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(READY) ## a failing push and the one that mends it, on a real server and runner
	$(BIN)/deltaci demo

test: $(READY) ## all tests but the long ones, in parallel and in random order
	$(BIN)/pytest -n auto -m "not long"

agreement: ## install the real Nx and Turborepo, which the tests in tests/planner/agreement ask; needs node and npm
	@cmp -s tests/planner/agreement/package-lock.json $(AGREEMENT)/package-lock.json || { \
		rm -rf $(AGREEMENT) $(AGREEMENT).new && mkdir -p $(AGREEMENT).new && \
		cp tests/planner/agreement/package.json tests/planner/agreement/package-lock.json $(AGREEMENT).new && \
		npm ci --prefix $(AGREEMENT).new --ignore-scripts --no-audit --no-fund --loglevel=error && \
		mv $(AGREEMENT).new $(AGREEMENT); }

facts: ## install GitHub's own description of its API and examples of its webhooks, for tests/forge; needs npm
	@cmp -s tests/forge/facts/package-lock.json $(FACTS)/package-lock.json || { \
		rm -rf $(FACTS) $(FACTS).new && mkdir -p $(FACTS).new && \
		cp tests/forge/facts/package.json tests/forge/facts/package-lock.json $(FACTS).new && \
		npm ci --prefix $(FACTS).new --ignore-scripts --no-audit --no-fund --loglevel=error && \
		mv $(FACTS).new $(FACTS); }

faults: $(READY) ## every fault against real processes; SLICE, as for pytest -k, takes a part of the long ones
	$(BIN)/pytest -n auto tests/faults $(if $(SLICE),-m long -k "$(SLICE)")

soak: $(READY) ## random kills of a busy little system: SOAK_S seconds (60), SEED to draw the same again
	$(BIN)/pytest -s -m long tests/faults/test_random_kills.py

explore: $(READY) ## every exploration and planted bug one by one, with what each covers; part of `make test`
	$(BIN)/python -m tests.exploration

lint: $(READY) ## format, lint, types, import contract, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## state diagrams from the transition tables
	$(BIN)/python -m docs.generate

bench: $(READY) ## load tests against a real server, as ratios to an empty baseline
	$(BIN)/python -m benchmarks

simulate: $(READY) ## the whole control plane in SEEDS worlds from FIRST_SEED on, or SEED alone with its trace
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) --trace,$(if $(SECONDS),--seconds $(SECONDS),--seeds $(or $(SEEDS),100)) --first-seed $(or $(FIRST_SEED),0)) $(if $(HOURS),--hours $(HOURS)) $(if $(BUG),--bug $(BUG))

lock: ## resolve exact versions anew
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools
	.venv-lock/bin/pip-compile --quiet --strip-extras --all-extras --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
