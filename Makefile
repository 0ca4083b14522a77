# Each target needs a Python of 3.11 or later and nothing else; `make help` lists them.
# Everything is installed into $(VENV) from pinned, hashed requirements. Deleting it is safe.

VENV ?= .venv
# What the template is checked with, which is half a GB and no part of the others.
TEMPLATE_VENV ?= .venv-template
# Which Python makes the environment; empty: the first of these that runs.
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3
# What `make test` runs: files, folders or options of pytest.
TESTS ?= tests
UV ?= uv

BIN := $(VENV)/bin
# Wheels only: building a source distribution would need a compiler, and tools nobody pinned.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PINNED := $(PIP) --require-hashes --only-binary :all:
COMPILE = $(UV) pip compile --universal --generate-hashes --python-version 3.11 \
	--no-annotate --quiet --custom-compile-command "make requirements"

.DELETE_ON_ERROR:
.PHONY: help demo test check format dist build package deploy template simulate scope soak bugs mutants failover drill bench bench-full bench-core bench-backfill requirements clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo "VENV=$(VENV) and PYTHON= choose the environment, TESTS= what make test runs."

demo: $(VENV)/.demo ## see it: DynamoDB, Redis, a cut and a replay on this machine (a minute)
	@$(BIN)/python -m asyncsync demo $(ARGS)

test: $(VENV)/.dev ## run the tests, against each of redis-server and valkey-server on PATH
	$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.dev ## format, lint and types, as CI sees them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff write what it would otherwise complain about
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dist: $(VENV)/.dev ## build wheel and sdist into dist/, without network
	$(BIN)/python -m build --no-isolation

build: $(VENV)/.dev ## build both functions' bundles, arm64 and x86_64, into dist/ (Python 3.13, no Docker)
	$(BIN)/python -m scripts.bundle

package: $(VENV)/.dev ## the same as zips with SHA-256, for Terraform, CDK and the console
	$(BIN)/python -m scripts.bundle --zip

deploy: package $(TEMPLATE_VENV)/.template ## sam deploy, with the parameters in samconfig.toml (docs/deploy.md)
	$(TEMPLATE_VENV)/bin/sam deploy --template-file template.yaml $(ARGS)

template: $(VENV)/.dev $(TEMPLATE_VENV)/.template ## check template.yaml as CloudFormation will get it
	$(BIN)/python -m pytest tests/deploy tests/tools/test_operations.py

simulate: $(VENV)/.dev ## try to break the order: 500 seeds of simulated runs (ARGS="--seed 7 --trace" tells one)
	$(BIN)/python -m asyncsync simulate $(ARGS)

scope: $(VENV)/.dev ## play every history of up to four records of two items, with one fault
	$(BIN)/python -m asyncsync simulate --scope 4

soak: $(VENV)/.dev ## run SEEDS= further seeds (100000) and write down which in docs/soak.jsonl
	$(BIN)/python -m tests.programs.soak $(or $(SEEDS),100000)

bugs: $(VENV)/.dev ## put one bug at a time into a copy of the package and see the simulator find it
	$(BIN)/python -m tests.programs.bugs

mutants: $(VENV)/.dev ## take each rule out of a copy of the package and see its tests fail
	$(BIN)/python -m tests.programs.mutants

failover: $(VENV)/.dev ## kill a cluster's primaries ten times in 100 000 records (two minutes)
	$(BIN)/python -m tests.programs.failover_drill $(ARGS)

drill: $(VENV)/.dev ## backfill, audit, mend and redrive a table of 200 000 items while it changes (ARGS="--items 5000")
	$(BIN)/python -m tests.programs.mending_drill $(ARGS)

bench: $(VENV)/.bench ## billed duration beside what people use today (three minutes)
	@$(BIN)/python -m benchmarks.bench $(ARGS)

bench-full: $(VENV)/.bench ## all of it, written to benchmarks/results and the README (15 minutes; ARGS="--seed 2")
	@$(BIN)/python -m benchmarks.bench --full $(ARGS)

bench-core: $(VENV)/.dev ## time the core, beside json and boto3's deserializer
	$(BIN)/python -m benchmarks.bench_core

bench-backfill: $(VENV)/.dev ## time a backfill beside pipelined SETs and an idle scan, and weigh it
	$(BIN)/python -m benchmarks.bench_backfill $(ARGS)

requirements: ## pin every dependency again (needs uv); dev first, so that those that meet agree
	$(COMPILE) --upgrade pyproject.toml --extra demo --group dev -o requirements/dev.txt
	$(COMPILE) --upgrade pyproject.toml --extra demo -c requirements/dev.txt -o requirements/demo.txt
	for each in lambda operations; do \
	    $(COMPILE) --upgrade --group $$each -c requirements/dev.txt -o requirements/$$each.txt || exit; \
	done
	for each in bench contestant-runtime contestant-redis contestant-powertools; do \
	    $(COMPILE) --upgrade --group $$each -c requirements/dev.txt -o requirements/$$each.txt || exit; \
	done
	$(COMPILE) --upgrade --group template -o requirements/template.txt

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) $(TEMPLATE_VENV) .bench build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find asyncsync scripts tests benchmarks -name __pycache__ -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------------
# A stamp is newer than what it was made from, so a second run costs nothing.

$(VENV)/.demo: requirements/demo.txt | $(VENV)/.made
	@echo "installing requirements/demo.txt into $(VENV)"
	@$(PINNED) -r requirements/demo.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.made
	@echo "installing requirements/dev.txt and the package into $(VENV)"
	@$(PINNED) -r requirements/dev.txt
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.dev
	@echo "installing requirements/bench.txt into $(VENV)"
	@$(PINNED) -r requirements/bench.txt
	@touch $@

$(TEMPLATE_VENV)/.template: requirements/template.txt | $(TEMPLATE_VENV)/.made
	@echo "installing requirements/template.txt into $(TEMPLATE_VENV)"
	@$(TEMPLATE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
	    --require-hashes --only-binary :all: --no-deps -r requirements/template.txt
	@touch $@

# A python3.x on PATH may be a version manager's shim that cannot run: so each is run.
$(VENV)/.made $(TEMPLATE_VENV)/.made:
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    found=$$python; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "making $(@D) with $$("$$python" --version)"; \
	    "$$python" -m venv $(@D) && touch $@; \
	    exit; \
	done; \
	if [ -n "$$found" ]; then \
	    echo "$$found lacks the venv module; on Debian and Ubuntu: apt install python3-venv" >&2; \
	else \
	    echo "no Python of 3.11 or later among: $(or $(PYTHON),$(PYTHONS))" >&2; \
	fi; \
	exit 1
