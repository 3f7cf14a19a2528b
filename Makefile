# What a person does with a clone of kio. `make run` and `make test` need nothing before them: each sets up what it needs.
#
#   make setup    the environment in .venv from requirements.lock, the C kernel built in place
#   make run      the daemon in the foreground, on loopback, with its data in ./data
#   make test     every test but the long ones            ARGS="tests/segments -k torn" narrows it
#   make check    style, types, import floors, layout, wheel and sdist
#   make stress   the long tests                          FULL=1 raises their counts
#   make bench    figures of this machine, kio beside redis-server; they go into README.md
#   make lock     requirements.lock anew from pyproject.toml (needs uv)
#   make clean    everything that was made, except ./data

# Every daemon of the tests is four processes: they start in half the time where bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# How pytest exits where ARGS leaves it nothing to do: it may be that a file's tests are all of one kind.
NONE_SELECTED := 5
KERNEL := setup.py $(wildcard kio/*.pxd segments/*.pyx segments/*.pxd segments/*.h kio/frontdoor/*.pyx kio/frontdoor/*.pxd kio/frontdoor/*.h)

.PHONY: setup run test check stress bench lock clean

setup: .venv/built

.venv/installed: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# Without build isolation: the versions of setuptools and Cython are the lock's, and nothing is fetched.
.venv/built: .venv/installed pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	touch $@

run: setup
	@exec $(BIN)/kio serve --data ./data $(ARGS)

test: setup
	$(BIN)/pytest -n auto $(ARGS)

stress: setup
	$(BIN)/pytest -m "stress and not alone" -n auto --dist worksteal --durations=20 $(ARGS) || test $$? = $(NONE_SELECTED)
	$(BIN)/pytest -m "stress and alone" --durations=20 $(ARGS) || test $$? = $(NONE_SELECTED)

bench: setup
	$(BIN)/python -m tests.measure.canonical

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not stress" tests/tidy

lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev \
		--python-version 3.11 --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find kio/ workers router segments replication tests -name __pycache__ -prune -exec rm -rf {} +
	find kio/ segments \( -name '*.so' -o -name '_*.c' \) -delete
