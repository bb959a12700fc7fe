# make demo, make test: each does all of its own set-up. See README.md.
SHELL := /bin/sh
PYTHON ?=
BIN := .venv/bin
# Two processes with one thread each are fastest for many small tests, and nothing calls home.
TEST_ENV := OMP_NUM_THREADS=1 DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false RAY_USAGE_STATS_ENABLED=0

.PHONY: help install dev demo test test-all lint format bench clean

help:
	@echo "make install   .venv with everything quoin needs (then: $(BIN)/quoin --help)"
	@echo "make demo      generate photos of a landmark with known truth, reconstruct them, score the mesh (demo/)"
	@echo "make test      the fast tests        make test-all   the slow ones too"
	@echo "make lint      style, import layers, types, dead code        make format   rewrite to the style"
	@echo "make bench     the numbers of benchmarks/README.md"
	@echo "make clean     remove what the above made, except runs"

# A stamp remembers what was installed; a changed pin or dependency installs again.
install: .venv/installed
dev: .venv/installed-dev

.venv/installed: pyproject.toml constraints.txt .ci/install
	@PYTHON="$(PYTHON)" .ci/install run
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt .ci/install
	@PYTHON="$(PYTHON)" .ci/install dev
	@touch .venv/installed $@

demo: .venv/installed
	$(BIN)/quoin demo --out demo

test: .venv/installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-all: .venv/installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -q -m "not compiled"
	$(TEST_ENV) TORCHDYNAMO_DISABLE=0 $(BIN)/python -m pytest -q -o filterwarnings=default \
		-o addopts="--import-mode=importlib -p no:dash" -m compiled

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/vulture

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
