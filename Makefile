# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# pip shows its own progress: the first install takes a minute or two.
PIP     = $(BIN)/pip --disable-pip-version-check
# Keeps what pip builds out of the way of the locked, hashed set.
INSTALL = $(PIP) install --require-hashes --requirement $(1) && $(PIP) install --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

include compose/targets.mk

.PHONY: demo
demo: $(VENV)/.demo ## The whole system on this machine: one payment of every outcome, live (DEMO="--keep" leaves it running)
	@$(BIN)/mpesa-gateway demo $(DEMO)

.PHONY: dev
dev: $(VENV)/.demo ## The same for a developer's day: fixed ports and key, data kept (DEV="--forward-to http://localhost:3000/mpesa")
	@$(BIN)/mpesa-gateway dev $(DEV)

.PHONY: test
test: $(VENV)/.dev ## The tests, on a real Postgres and a real Redis (TESTS="tests/api -k callback" runs a few)
	@BIN=$(BIN) ./scripts/test $(TESTS)

.PHONY: test-stores
test-stores: $(VENV)/.dev ## The tests that use stores, on Debian's own Postgres and Redis (apt), or on TEST_DATABASE_URL and TEST_REDIS_URL
	@scripts/stores $(BIN)/python -m pytest $(or $(TESTS),tests/integration tests/api tests/commands) -m "not slow" --numprocesses $(or $(JOBS),2) --dist worksteal --quiet

.PHONY: test-faults
test-faults: $(VENV)/.dev ## The slow tests: hundreds of payments while processes are killed, Redis emptied, Postgres restarted; the demo under signals
	@BIN=$(BIN) scripts/pytest -m slow --numprocesses 2 --dist worksteal --quiet

.PHONY: test-outages
test-outages: $(VENV)/.dev ## Real processes under load while Postgres is away for up to three minutes, or stands still for good
	@MPESA_OUTAGES=run $(BIN)/python -m pytest tests/e2e/test_outages.py --quiet

.PHONY: test-redis
test-redis: $(VENV)/.dev ## The tests of Redis on another server than the wheel's 6.2 (REDIS=/usr/bin/redis-server, or a valkey-server)
	@TEST_REDIS_SERVER=$(or $(REDIS),$(shell command -v redis-server)) $(BIN)/python -m pytest tests/integration --quiet -k "redis or token or budget"

.PHONY: test-crash
test-crash: $(VENV)/.dev ## kill -9 at every failpoint of every scenario, and the table of what it came to
	@$(BIN)/python scripts/crash_suite.py

.PHONY: test-planted
test-planted: $(VENV)/.dev ## Proof that the suites can fail: each planted bug must be caught
	@$(BIN)/python scripts/planted_suite.py

.PHONY: chaos
chaos: $(VENV)/.dev ## Ten minutes of load while processes, database and network are killed, stopped and cut (CHAOS_MINUTES=60, SEED=7, CHAOS_FAULTS=kills, faults, outages or all)
	@PYTHONPATH=tests $(BIN)/python -m harness.chaos

.PHONY: test-rules
test-rules: $(VENV)/.dev ## The chart's alerts ring when they should: by promtool (fetched with apt), and live, on gateways that are broken on purpose; and their runbooks
	@PATH="$$PATH:$$(scripts/prometheus)" BIN=$(BIN) scripts/pytest tests/rules -q

.PHONY: test-snippets
test-snippets: $(VENV)/.docs ## The docs as a site in a real browser, their webhook functions in five languages, generated clients (installs Node.js, PHP, Java, Go and Chromium with apt)
	@scripts/languages && MPESA_SNIPPETS=required BIN=$(BIN) scripts/pytest tests/docs/test_completion.py tests/docs/test_examples.py tests/docs/test_generated_clients.py tests/docs/test_site.py tests/docs/test_webhook_snippets.py -q

.PHONY: test-simulation
test-simulation: $(VENV)/.dev ## Layer B, for longer: any order of events, in virtual time (EXAMPLES=200 SEED=…)
	@EXAMPLES=$(or $(EXAMPLES),200) SEED=$(SEED) $(BIN)/python -m pytest tests/simulation --quiet

.PHONY: test-naive
test-naive: $(VENV)/.dev ## The same kills for plain Huey with retries, in a column beside the gateway's (SEEDS="1 2")
	@$(BIN)/python scripts/naive_suite.py

.PHONY: lint
lint: $(VENV)/.dev ## Format, lint, strict types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@test ! -e operator/__init__.py || { echo "operator/__init__.py would shadow the standard library's operator"; exit 1; }

.PHONY: format
format: $(VENV)/.dev ## Rewrite the code in the project's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

.PHONY: dashboards
dashboards: $(VENV)/.dev ## Write the chart's Grafana dashboards again from scripts/grafana
	@PYTHONPATH=scripts $(BIN)/python -m grafana

.PHONY: dashboards-preview
dashboards-preview: $(VENV)/.bench ## A picture of each dashboard, of an ordinary day and of a busy minute, in docs/img (needs Prometheus, or apt)
	@PATH="$$PATH:$$(scripts/prometheus)" PYTHONPATH=scripts:tests $(BIN)/python tests/dashboards/preview.py

.PHONY: pictures
pictures: $(VENV)/.dev ## The docs' pictures of the demo and of a payment's timeline, from real runs, in docs/img
	@PYTHONPATH=tests $(BIN)/python tests/docs/pictures.py

.PHONY: test-dashboards
test-dashboards: $(VENV)/.dev ## Every panel's query on a real Prometheus, over a gateway that has seen everything
	@BIN=$(BIN) scripts/pytest tests/dashboards

.PHONY: lock
lock: $(VENV)/.dev ## Write the lock files again from pyproject.toml
	@./scripts/lock $(BIN)/uv

.PHONY: audit
audit: $(VENV)/.dev ## Known vulnerabilities of every locked package (AUDIT_UNREACHABLE=allow without a network)
	@$(BIN)/python scripts/audit.py

.PHONY: dist
dist: $(VENV)/.dev ## The Python package, as sdist and wheel, in dist/
	@$(BIN)/hatchling build --directory dist --target sdist --target wheel

.PHONY: sbom
sbom: $(VENV)/.dev ## CycloneDX SBOM of the locked packages into dist/ (SBOM_IMAGE names an image to describe too)
	@BIN=$(BIN) SBOM_IMAGE=$(SBOM_IMAGE) ./scripts/sbom

$(VENV)/.demo: locks/requirements-demo.lock pyproject.toml
	@echo "Installing what the demo needs into $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call INSTALL,locks/requirements-demo.lock)
	@touch $@

$(VENV)/.dev: locks/requirements-dev.lock pyproject.toml
	@echo "Installing what the tests and linters need into $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call INSTALL,locks/requirements-dev.lock)
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: locks/requirements-bench.lock $(VENV)/.dev
	@echo "Installing what the benchmarks and pictures need into $(VENV) (once)"
	@$(PIP) install --require-hashes --requirement locks/requirements-bench.lock
	@touch $@

$(VENV)/.docs: locks/requirements-docs.lock $(VENV)/.dev
	@echo "Installing what builds the docs into $(VENV) (once)"
	@$(PIP) install --require-hashes --requirement locks/requirements-docs.lock
	@touch $@

.PHONY: docs
docs: $(VENV)/.docs ## The docs as a site with search, in site/ (a broken link fails)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "The site is in site/. Look at it: python3 -m http.server --directory site 8000"

.PHONY: bench
bench: $(VENV)/.bench ## Measure against what this machine's Postgres can do; writes docs/performance.* (BENCH=short: a trial of 90 s)
	@$(BIN)/python -m bench $(if $(filter short,$(BENCH)),short,full --publish)

.PHONY: bench-scale
bench-scale: $(VENV)/.bench ## Ten million payments beside none: hot queries, inserts, room, retention (ROWS=200000 for a trial; needs 4 GB a million)
	@$(BIN)/python -m bench.scale build --rows $(or $(ROWS),10000000)
	@$(BIN)/python -m bench.scale measure $(if $(ROWS),,--publish)

.PHONY: test-bench
test-bench: $(VENV)/.bench ## Proof that every part of the benchmarks works, in about three minutes; nothing is judged by time
	@$(BIN)/python -m bench short --into build/test-bench
	@set -e; scale=$$(mktemp -d); trap 'rm -rf "$$scale"' EXIT; \
	  $(BIN)/python -m bench.scale build --rows 20000 --directory "$$scale"; \
	  $(BIN)/python -m bench.scale measure --rounds 1 --directory "$$scale" --into build/test-bench-scale
	@$(BIN)/python -m bench.check build/test-bench/bench.json build/test-bench-scale/bench.json
