# Each target needs Python 3.11 or later and nothing else; `make help` lists them.
# They install everything into $(VENV) from pinned, hashed requirements. You may delete it.

VENV ?= .venv
# The environment that checks the template: half a GB, apart from the others.
TEMPLATE_VENV ?= .venv-template
# Node's clients of Redis, which docs/reading.md names.
READERS := .readers
# The Python that creates the environment; empty: the first of these that runs.
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3
# The Pythons of Lambda that a release has zips for; empty: all (make deploy: 3.13).
RUNTIMES ?=
# What `make test` runs: files, folders or options of pytest.
TESTS ?= tests
UV ?= uv
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' asyncsync/version.py)

BIN := $(VENV)/bin
# Wheels only: a source distribution would need a compiler and build tools that are not pinned.
INSTALL := $(BIN)/python scripts/install.py
PINNED := $(INSTALL) --require-hashes --only-binary :all:
COMPILE = $(UV) pip compile --universal --generate-hashes --python-version 3.11 \
	--no-annotate --quiet --custom-compile-command "make requirements"

.DELETE_ON_ERROR:
.PHONY: help demo test matrix readers coverage coverage-core check format dist build package release deploy smoke template simulate scope soak bugs mutants failover drill reader-drill bench bench-full bench-core bench-backfill bench-reader bench-memory cost-page requirements clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo "VENV=$(VENV) and PYTHON= choose the environment, TESTS= what make test runs."

demo: $(VENV)/.demo ## show it: DynamoDB, Redis, a cut and a replay on this machine (a minute)
	@$(BIN)/python -m asyncsync demo $(ARGS)

test: $(VENV)/.dev ## run the tests, on redis-server and valkey-server where they are on PATH
	$(BIN)/python -m pytest $(TESTS)

matrix: $(VENV)/.dev ## run what talks to a server on SERVERS=folder:folder (DYNAMODB_JAR=), into docs/support.md
	$(BIN)/python -m tests.programs.matrix $(if $(DYNAMODB_JAR),--jar "$(abspath $(DYNAMODB_JAR))") "$(SERVERS)"

# A process that a test starts is not counted.
coverage: $(VENV)/.dev ## run the package's tests and hold its branch coverage (several minutes)
	$(BIN)/coverage run -m pytest tests/core tests/edges tests/mapping tests/copy tests/aws tests/reader \
	    tests/testing tests/tools tests/lab
	$(BIN)/coverage report

coverage-core: $(VENV)/.dev ## run the core's tests and hold its branch coverage at 100 %
	$(BIN)/coverage run -m pytest tests/core
	$(BIN)/coverage report --fail-under=100 --include="$$($(BIN)/python -c \
	    'from tests.support.project.package import CORE; print(*map("asyncsync/{}.py".format, CORE), sep=",")')"

check: $(VENV)/.dev ## check format, lint and types, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dist: $(VENV)/.dev ## build wheel and sdist into dist/, without network
	$(BIN)/python -m build --no-isolation

build: $(VENV)/.dev ## build both functions' bundles, arm64 and x86_64, into dist/ (Python 3.13, no Docker)
	$(BIN)/python -m scripts.bundle

package: $(VENV)/.dev ## build them as zips with SHA-256, for Terraform, CDK and the console
	$(BIN)/python -m scripts.bundle --zip

# Needs python3.13 and python3.14: each compiles the bytecode that its runtime loads.
release: $(VENV)/.dev $(TEMPLATE_VENV)/.template ## build a release into dist/ (RUNTIMES="3.13 3.14"): zips, template, SHA-256
	$(BIN)/python -m scripts.release --tools $(TEMPLATE_VENV)/bin/python \
	    $(foreach version,$(RUNTIMES),--python $(version))

# What can be missing is looked for before anything is built.
deploy: ## build a release and deploy it as STACK= with PARAMETERS=file.json (docs/deploy.md)
	@sh scripts/deploy.sh --check "$(STACK)" "$(PARAMETERS)"
	@$(MAKE) --no-print-directory release RUNTIMES="$(or $(RUNTIMES),3.13)"
	@sh dist/asyncsync-$(VERSION)/deploy.sh "$(STACK)" "$(PARAMETERS)" $(ARGS)

smoke: $(VENV)/.dev ## settle on a deployed stack what only AWS can show: STACK=name (docs/operations.md)
	@$(BIN)/python -m scripts.smoke "$(STACK)" $(ARGS)

readers: $(VENV)/.dev $(READERS)/.installed ## run docs/reading.md's JavaScript (Node 20 or later, npm)
	$(BIN)/python -m pytest tests/deploy/test_readers.py

template: $(VENV)/.dev $(TEMPLATE_VENV)/.template ## check template.yaml as CloudFormation gets it
	$(BIN)/python -m pytest tests/deploy tests/tools/test_operations.py

simulate: $(VENV)/.dev ## run 500 seeds of the fault simulator (ARGS="--seed 7 --trace" shows one)
	$(BIN)/python -m asyncsync simulate $(ARGS)

scope: $(VENV)/.dev ## run every history of up to four records of two items, with one fault
	$(BIN)/python -m asyncsync simulate --scope 4

soak: $(VENV)/.dev ## run SEEDS= new seeds (100000) and record them in docs/soak.jsonl
	$(BIN)/python -m tests.programs.soak $(or $(SEEDS),100000)

bugs: $(VENV)/.dev ## put one bug at a time into a copy of the package; the simulator must see it
	$(BIN)/python -m tests.programs.bugs $(ARGS)

mutants: $(VENV)/.dev ## take one rule at a time out of a copy of the package; its tests must fail
	$(BIN)/python -m tests.programs.mutants $(ARGS)

failover: $(VENV)/.dev ## kill a cluster's primaries ten times in 100,000 records (two minutes)
	$(BIN)/python -m tests.programs.failover_drill $(ARGS)

drill: $(VENV)/.dev ## backfill, audit, repair and redrive a changing table of 200,000 items (ARGS="--items 5000")
	$(BIN)/python -m tests.programs.mending_drill $(ARGS)

reader-drill: $(VENV)/.dev ## read through a server that is flushed, killed and too small, beside cache-aside (ARGS=--record)
	$(BIN)/python -m tests.programs.reader_drill $(ARGS)

bench: $(VENV)/.bench ## measure billed duration beside other handlers (three minutes)
	@$(BIN)/python -m benchmarks.bench $(ARGS)

bench-full: $(VENV)/.bench ## measure all, and write benchmarks/results and the README (15 minutes; ARGS="--seed 2")
	@$(BIN)/python -m benchmarks.bench --full $(ARGS)

bench-core: $(VENV)/.dev ## time the core beside json and boto3's deserializer
	$(BIN)/python -m benchmarks.bench_core

bench-backfill: $(VENV)/.dev ## time a backfill beside pipelined SETs and an idle scan; measure its memory
	$(BIN)/python -m benchmarks.bench_backfill $(ARGS)

bench-reader: $(VENV)/.dev ## time reads through the copy beside GET, MGET and GetItem
	$(BIN)/python -m benchmarks.bench_reader $(ARGS)

bench-memory: $(VENV)/.dev ## weigh a copy's keys on SERVERS=folder:folder (ten minutes), into benchmarks/results/memory.json
	$(BIN)/python -m benchmarks.bench_memory "$(SERVERS)"

cost-page: $(VENV)/.bench ## write the tables and draw the plots of docs/cost.md, from the code
	@$(BIN)/python -m benchmarks.report.cost_page

requirements: ## pin the newest dependencies (needs uv); dev first, so that all files agree
	$(COMPILE) --upgrade pyproject.toml --extra demo --group dev -o requirements/dev.txt
	$(COMPILE) --upgrade pyproject.toml --extra demo -c requirements/dev.txt -o requirements/demo.txt
	for group in lambda operations; do \
	    $(COMPILE) --upgrade --group $$group -c requirements/dev.txt -o requirements/$$group.txt || exit; \
	done
	for group in bench contestant-runtime contestant-redis contestant-powertools; do \
	    $(COMPILE) --upgrade --group $$group -c requirements/dev.txt -o requirements/$$group.txt || exit; \
	done
	$(COMPILE) --upgrade --group template -o requirements/template.txt
	$(COMPILE) --upgrade --group examples -c requirements/dev.txt -o requirements/examples.txt

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) $(TEMPLATE_VENV) $(READERS) .bench build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find asyncsync scripts tests benchmarks -name __pycache__ -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------------
# A stamp is newer than its sources, so a second run costs nothing.

$(VENV)/.demo: requirements/demo.txt | $(VENV)/.made
	@echo "installing requirements/demo.txt into $(VENV)"
	@$(PINNED) -r requirements/demo.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.made
	@echo "installing requirements/dev.txt and the package into $(VENV)"
	@$(PINNED) -r requirements/dev.txt
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.dev
	@echo "installing requirements/bench.txt into $(VENV)"
	@$(PINNED) -r requirements/bench.txt
	@touch $@

$(TEMPLATE_VENV)/.template: requirements/template.txt | $(TEMPLATE_VENV)/.made
	@echo "installing requirements/template.txt into $(TEMPLATE_VENV)"
	@$(TEMPLATE_VENV)/bin/python scripts/install.py \
	    --require-hashes --only-binary :all: --no-deps -r requirements/template.txt
	@touch $@

$(READERS)/.installed: tests/readers/package-lock.json tests/readers/package.json
	@mkdir -p $(READERS)
	@cp tests/readers/package.json tests/readers/package-lock.json $(READERS)
	@echo "installing tests/readers/package-lock.json into $(READERS)"
	@cd $(READERS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# A python3.x on PATH may be a version manager's shim that cannot run, so try each.
$(VENV)/.made $(TEMPLATE_VENV)/.made:
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    old=$$python; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "creating $(@D) with $$("$$python" --version)"; \
	    "$$python" -m venv $(@D) && touch $@; \
	    exit; \
	done; \
	if [ -n "$$old" ]; then \
	    echo "$$old lacks the venv module; on Debian and Ubuntu: apt install python3-venv" >&2; \
	else \
	    echo "found no Python 3.11 or later among: $(or $(PYTHON),$(PYTHONS))" >&2; \
	fi; \
	exit 1
