# `make repro` runs the study, `make test` the tests; each first makes .venv what requirements.lock says.
# Another interpreter: PYTHON=python3.12 make repro. Further arguments: make test ARGS="-k losses".

PYTHON ?= python3
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: repro verify test lab bench lint setup lock

repro: setup
	$(RUN) python scripts/mend_locks.py
	$(RUN) dvc repro $(ARGS)

# The study's results beside the committed ones; another study, another commit: make verify ARGS="--study etris".
verify: setup
	$(RUN) PYTHONPATH=src python -m featherseg verify $(ARGS)

# Test files run in their own order, in which the slowest come early, and not by their number of tests.
test: setup
	$(RUN) pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lab: setup
	$(RUN) jupyter lab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

bench: setup
	$(RUN) PYTHONPATH=src:. python -m benchmarks $(ARGS)

lint: setup
	$(RUN) ruff check
	$(RUN) mypy

setup:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) was found; install Python 3.11 or newer, or choose one: PYTHON=python3.12 make repro." >&2; exit 1; }
	@$(PYTHON) scripts/bootstrap.py

# Resolve pyproject.toml anew; versions that still fit stay as they are.
lock: setup
	$(RUN) UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --generate-hashes \
		--no-emit-index-url --all-extras pyproject.toml --output-file requirements.lock
