# Every command of the project. The first one sets up .venv; nothing is installed anywhere else.
#   make PYTHON=python3.12 test        another interpreter (needed only if the one on PATH is older than 3.11)
#   make test ARGS="-k rooms -x"       ARGS goes to the program behind the target
#   make lock UPGRADE=--upgrade        all pins to the newest allowed; without it, only what pyproject.toml changed

.DEFAULT_GOAL := help
PYTHON ?=
ARGS ?=
UPGRADE ?=
export PYTHON
BIN := .venv/bin
CODE = $(wildcard src tests examples benchmarks)
INTEGRATION = $(wildcard tests/network tests/conformance tests/cluster tests/faults tests/browser)
LOCK = UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true $(BIN)/python -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --quiet $(UPGRADE)

.PHONY: help setup setup-run browser serve test integration autobahn nightly coverage guard check audit format-check lint types imports docs format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

serve: setup-run ## run the server with demo data; prints its address, a token and two commands to copy
	@$(BIN)/aibos-realtime serve --demo $(ARGS)

test: setup browser ## run every test, the ones with real servers too
	@scripts/test $(BIN)/python -m pytest $(ARGS)

integration: setup browser ## run only the tests with real sockets and servers
	@$(BIN)/python -m pytest $(INTEGRATION) $(ARGS)

autobahn: setup ## run the Autobahn testsuite against the server and the Python client, 301 cases each (needs a Python 2.7 besides)
	@$(BIN)/python -m tests.conformance.autobahn $(ARGS)

nightly: setup ## what takes too long for `make test`: all 517 cases of the Autobahn testsuite, both ways; ARGS=--keep writes them into the docs
	@$(BIN)/python -m tests.conformance.autobahn --all $(ARGS)

coverage: setup browser ## run every test and measure coverage (the pages are in coverage/)
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html:coverage $(ARGS)

guard: setup ## what the hot paths cost beside what is kept (needs valgrind); ARGS=--keep keeps the new figures, ARGS="ping join" picks paths
	@$(BIN)/python -m tests.guard $(ARGS)

check: format-check lint types imports docs ## all that needs no test run: format, lint, types, layers, house rules, examples in the docs

audit: setup ## known vulnerabilities of the locked packages, and secrets that were committed; ARGS=secrets does one of the two
	@$(BIN)/python scripts/audit.py $(ARGS)

format-check: setup
	@$(BIN)/ruff format --check $(CODE)

lint: setup
	@$(BIN)/ruff check $(CODE)

types: setup
	@$(BIN)/mypy --strict $(CODE)

imports: setup
	@$(BIN)/lint-imports

docs: setup
	@$(BIN)/python -m pytest -q tests/test_house.py tests/test_docs.py

format: setup ## mend format and lint in place
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

lock: setup ## renew requirements.lock and requirements-dev.lock from pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > .venv/build.in
	@$(LOCK) .venv/build.in -o requirements.lock
	@$(LOCK) .venv/build.in --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## remove .venv and everything that was generated
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage coverage dist build

setup:
	@scripts/setup dev

setup-run:
	@scripts/setup run

browser: setup
	@scripts/browser install >/dev/null || true
