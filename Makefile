# The two commands: `make demo` and `make test`. Both set up what they need inside the checkout.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .dev/bench-venv
ENDPOINTS := .dev/endpoints-venv

.PHONY: demo test test-apart test-opensearch-2 unit chaos bench bench-full bench-peers endpoints screenshots openapi settings-page dashboard schemas lint lock clean

demo: $(READY)
	@PYTHONPATH=. $(BIN)/python -m dev.demo $(if $(ONCE),--once) $(if $(ALL),--all) $(if $(LOGS),--logs "$(LOGS)") $(if $(N),--count $(N))

# JOBS=n processes at once, each with servers of its own: some 3 GB of memory. One more than there
# are cores, since much of a test's time is waiting.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) + 1) if hasattr(os, "sched_getaffinity") else 3)')
SHARED_OUT := -n $(JOBS) --dist loadscope --no-loadscope-reorder

test: $(READY) lint
	@$(BIN)/python -m pytest -m "not apart" $(SHARED_OUT)

# What takes minutes: Kafka with TLS and logins, and the longest forms of tests whose shorter ones
# are in `make test`.
test-apart: $(READY)
	@$(BIN)/python -m pytest -m apart $(SHARED_OUT)

# The core of the integration tests on the oldest OpenSearch that is tested; OPENSEARCH= another.
ON_RELEASES := cycle delivery paging sick_indices counts_in_part timestamps whole_sources \
	hostile_logs index_names refusals_over_http one_deployment reindex
test-opensearch-2: OPENSEARCH := 2.19.1
test-opensearch-2: $(READY)
	@TEST_OPENSEARCH=$(OPENSEARCH) $(BIN)/python -m pytest $(ON_RELEASES:%=tests/integration/test_%.py) $(SHARED_OUT)

# Those that need no server, but for the longest random walks.
unit: $(READY)
	@$(BIN)/python -m pytest tests/unit -m "not long and not apart" $(SHARED_OUT)

# The whole matrix of faults, about half an hour; ONLY="row,row" for some, SOAK=seconds at random.
chaos: $(READY)
	@PYTHONPATH=. $(BIN)/python -m tests.chaos.run $(if $(ONLY),--only $(ONLY)) $(if $(SOAK),--soak $(SOAK)) $(if $(SEED),--seed $(SEED))

# Minutes; ONLY="line,line", SIZE=logs, ROUNDS=n. What it prints is explained in docs/performance.md.
bench: bench-peers
	@PYTHONPATH=. $(BIN)/python -m benchmarks $(BENCH)

# Hours: all lines, at full size.
bench-full: bench-peers
	@PYTHONPATH=. $(BIN)/python -m benchmarks --full $(BENCH)

BENCH = $(if $(ONLY),--only $(ONLY)) $(if $(SIZE),--size $(SIZE)) $(if $(ROUNDS),--rounds $(ROUNDS))

# What users would otherwise run, in an environment of its own.
bench-peers: $(READY) $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/requirements.txt
	@echo "setting up $(PEERS) (once, about a minute)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

# Programs that serve embeddings, in an environment of their own, and the test that uses them.
endpoints: $(READY) $(ENDPOINTS)/.ready
	@$(BIN)/python -m pytest tests/integration/test_endpoint_programs.py -rs

$(ENDPOINTS)/.ready: tests/endpoints-requirements.txt
	@echo "setting up $(ENDPOINTS) (once, about two minutes)"
	@$(PYTHON) -m venv $(ENDPOINTS)
	@$(ENDPOINTS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Flower's page in every state, on a desktop and a phone, light and dark, into .dev/screenshots; needs
# a Chromium. ONLY="scene,scene" for some.
screenshots: $(READY)
	@PYTHONPATH=. $(BIN)/python -m tests.page.screenshots $(if $(ONLY),--only $(ONLY))

# What a module prints, into a file of the project, which keeps what it has where that fails.
written = PYTHONPATH=. $(BIN)/python -m $(1) > $(2).new && mv $(2).new $(2) || { rm -f $(2).new; exit 1; }

# The service's description of itself, which a test holds against the service.
openapi: $(READY)
	@$(call written,dev.openapi,docs/openapi.json)

# The page of all settings, which a test holds against the class that reads them.
settings-page: $(READY)
	@$(call written,dev.settings_page,docs/settings.md)

# The dashboard for Grafana, which a test holds against the file that describes it.
dashboard: $(READY)
	@$(call written,dev.dashboard,deploy/grafana/dashboards/enrich.json)

# What `--json` prints, which tests hold against what is printed.
schemas: $(READY)
	@$(call written,dev.json_schemas,docs/json-schemas.json)

lint: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

# Every package that an installation ends up with, for every system, with its hashes. What is asked
# for stands in pyproject.toml, and for the checks in requirements-dev.txt; other versions stay as
# they are unless UPGRADE="--upgrade" asks for others. Needs uv.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock" $(UPGRADE)
LOCK := $(COMPILE) --generate-hashes
lock:
	@$(COMPILE) --no-deps -o requirements.txt pyproject.toml
	@$(LOCK) -o requirements-dev.lock requirements-dev.txt
	@$(LOCK) -o requirements.lock -c requirements-dev.lock pyproject.toml
	@$(LOCK) -o requirements-image.lock -c requirements-dev.lock --extra kafka --extra api pyproject.toml
	@$(LOCK) -o requirements-extras.lock -c requirements-dev.lock --all-extras pyproject.toml

# The stamp is written last, so that an interrupted set-up is done again.
$(READY): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make demo PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import platform, sys; platform.machine() in ("x86_64", "AMD64") or sys.platform == "darwin" or sys.exit("The embedded services have no packages for this system: use docker-compose.yml, see README.md")'
	@echo "setting up $(VENV) (once, one to three minutes)"
	@$(PYTHON) -m venv $(VENV)
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-color --progress-bar off --require-hashes -r requirements-dev.lock | awk '/^Collecting/ { n++; if (n % 20 == 0) { print "  " n " packages found"; fflush() } } /^Installing/ { print "  installing"; fflush() }'
	@touch $@

clean:
	rm -rf $(VENV) .dev .mypy_cache .ruff_cache .pytest_cache .hypothesis
