# You need make and Python 3.11 or newer: each target installs the rest into .venv by itself.

VENV := .venv
PIP  := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input -qq

# The number of test processes: more than there are processors, because many tests wait.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n + n / 2 + 1)))

# How many times more random examples `make soak` tries than `make test`.
SOAK ?= 20

# How long `make fuzz` tries each parser.
SECONDS ?= 60

# The tests start Python hundreds of times: it should compile hasten once.
unexport PYTHONDONTWRITEBYTECODE
WHAT ?= jobs

# WHAT names a folder in benchmarks/. Some need more than others: NEEDS_ is followed by the folder.
# The pins of the queues on Redis clash: each has an environment of its own.
FOLDER := $(subst -,_,$(WHAT))
NEEDS_jobs_redis := $(VENV)/.servers $(VENV)/.bench-node-jobs_redis \
	$(patsubst requirements/rivals/%.txt,$(VENV)/rivals/%/.done,$(wildcard requirements/rivals/*.txt))
NEEDS_compression := $(VENV)/.bench-node-compression
NEEDS_ratelimit := $(VENV)/.servers $(VENV)/.bench-node-ratelimit
NEEDS_pagination := $(VENV)/.postgres

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak fuzz clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo  ## Run the demo application; ONCE=1 ends after its tour, PORT=8001 sets the port
	@$(VENV)/bin/python -m examples.send_email $(if $(ONCE),--once)

test: $(VENV)/.dev $(VENV)/.servers $(VENV)/.browsers $(VENV)/.node  ## Run the tests in JOBS=4 processes; ARGS="-k lease -x" goes to pytest
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(VENV)/.dev  ## Lint, check the format and the types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy

bench: $(VENV)/.bench $(NEEDS_$(FOLDER))  ## Measure against the rivals; WHAT=jobs is the folder in benchmarks/
	@$(VENV)/bin/python -m benchmarks.$(FOLDER) $(ARGS)

soak: $(VENV)/.dev $(VENV)/.servers $(VENV)/.browsers $(VENV)/.node  ## Run the tests that take minutes; SOAK=20 times as many random examples
	@HASTEN_SOAK=$(SOAK) $(VENV)/bin/python -m pytest -m "soak or hypothesis" -o faulthandler_timeout=0 -n $(JOBS) --dist worksteal $(ARGS)

fuzz: $(VENV)/.dev $(VENV)/.fuzz  ## Fuzz the parsers of untrusted input for SECONDS=60 each; TARGET=cursor is one of them
	@$(VENV)/bin/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

clean:  ## Remove what the other targets installed
	rm -rf $(VENV)

# Set-up. Each file below .venv is the time stamp of one finished installation.

$(VENV)/.dev: requirements/demo.txt

$(VENV)/.%: requirements/%.txt $(VENV)/.python constraints.txt pyproject.toml
	@echo "Installing hasten and requirements/$*.txt into $(VENV)"
	@$(PIP) install -c constraints.txt --no-build-isolation -r $< -e '.[all]'
	@touch $@

# hatchling and editables are what builds hasten: pinned, too, as they are not in an isolated build.
$(VENV)/.python:
	@$(FIND_PYTHON); $(MAKE_VENV)
	@$(PIP) install -c constraints.txt hatchling editables
	@touch $@

# Redis, browsers and Node are Debian packages. If they are missing and cannot be installed, the tests
# that need them are skipped with the reason; with CI set they fail.
$(VENV)/.servers: | $(VENV)/.python
	@$(call NEED,redis-server,redis-server) && $(call NEED,redis-sentinel,redis-sentinel) \
		&& $(call NEED,openssl,openssl) && $(NEED_POSTGRES) && touch $@ || true

$(VENV)/.postgres: | $(VENV)/.python
	@$(NEED_POSTGRES) && touch $@ || true

# Google Chrome works, too, but is not a Debian package.
$(VENV)/.browsers: | $(VENV)/.python
	@$(call NEED,curl,curl) \
		&& { command -v google-chrome >/dev/null || $(call NEED,chromium,chromium); } && touch $@ || true

# What the tests and benchmarks run in Node: the versions are those in package.json.
$(VENV)/.node: tests/interop/package.json | $(VENV)/.python
	@$(INSTALL_NODE_PACKAGES)

$(VENV)/.bench-node-%: benchmarks/%/package.json | $(VENV)/.python
	@$(INSTALL_NODE_PACKAGES)

# A rival that cannot be installed is left out, and the benchmark reports it.
$(VENV)/rivals/%/.done: requirements/rivals/%.txt | $(VENV)/.python
	@echo "Installing $< into $(@D)"
	@{ $(VENV)/bin/python -m venv --clear $(@D) \
		&& $(@D)/bin/python -m pip --disable-pip-version-check --no-input -qq install --no-deps -r $< \
		&& touch $@; } || echo "$< could not be installed" >&2

INSTALL_NODE_PACKAGES = \
	if $(call NEED,node,nodejs) && $(call NEED,npm,npm); then \
		echo "Installing $< into $(<D)/node_modules"; \
		npm --prefix $(<D) install --no-audit --no-fund --loglevel=error >/dev/null && touch $@; \
	fi

# Debian keeps PostgreSQL's programs out of the PATH.
NEED_POSTGRES = { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || $(call NEED,initdb,postgresql); }

# $(call NEED,program,package) is true where the program is, or could be installed.
NEED = { command -v $(1) >/dev/null || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(2)"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y --no-install-recommends $(2) >/dev/null; \
	else \
		echo "$(1) is missing: install it (Debian and Ubuntu: apt-get install $(2))" >&2; false; \
	fi; }; }

# Sets $python, or explains.
FIND_PYTHON = \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python ''; do \
		if [ -z "$$python" ] || "$$python" -c \
			'import sqlite3, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "hasten needs Python 3.11 or newer with its sqlite3 module; none of python3," \
			"python3.11 to python3.14 and python is one." >&2; \
		echo "Install it, or say where it is: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi

MAKE_VENV = \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "$$python cannot create virtual environments. Install the package that provides this" \
				"($$package on Debian and Ubuntu), then run make again." >&2; \
			exit 1; \
		fi; \
		echo "Installing $$package, which $$python needs for that"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y "$$package" >/dev/null || exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
