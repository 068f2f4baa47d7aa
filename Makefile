PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A second judge of what is asked of AWS.
MOTO_VENV := .venv-moto
MOTO_READY := $(MOTO_VENV)/.ready
MOTO_NEEDS := tests/backends/aws/judges/requirements.txt

# What workers run with, and what compiles their kernel, at versions and hashes that are the same everywhere.
LOCKS := fsdcore/deploy/compiler backends/aws/fsd_aws/deploy/requirements backends/gcp/fsd_gcp/deploy/requirements

# A compiler for all machines, as a deployment uses it; and what it makes runs on any Linux since 2014.
ZIG := $(CURDIR)/build/compiler/ziglang/zig
OLDEST_GLIBC := 2.17

.PHONY: demo test test-all coverage test-kernels lint locks wheels bench clean

$(READY): pyproject.toml emulators/pyproject.toml setup.py $(wildcard fsdcore/kernels/*.c fsdcore/kernels/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev --editable ".[demo,testing,aws,gcp]" --editable ./emulators
	touch $(READY)

$(MOTO_READY): $(MOTO_NEEDS)
	$(PYTHON) -m venv $(MOTO_VENV)
	$(MOTO_VENV)/bin/python -m pip install --quiet --requirement $(MOTO_NEEDS)
	touch $(MOTO_READY)

# A real sparse network over 8 workers, checked against the serial answer.
demo: $(READY)
	$(BIN)/fsd demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(READY) $(MOTO_READY)
	$(BIN)/python -m pytest -n 2

# Which lines and branches of the core the tests take.
coverage: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html

# What depends on the kernel, with each of them.
test-kernels: $(READY)
	for kernel in compiled scipy; do \
		$(BIN)/python -m pytest -n 2 --kernel $$kernel -m "not slow" tests/kernels tests/client/test_session.py tests/worker || exit 1; \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Anew from the files that end in .in.
locks: $(READY)
	for lock in $(LOCKS); do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
			--custom-compile-command "make locks" --output-file $$lock.txt $$lock.in || exit 1; \
	done

# What a release consists of: the sources, a wheel for Linux on each processor, and one without kernel for all else.
wheels: $(READY)
	rm -rf build dist
	$(BIN)/uv pip install --quiet --require-hashes --target build/compiler --requirements fsdcore/deploy/compiler.txt
	$(BIN)/uv build --quiet --sdist --out-dir dist
	FSD_KERNEL=none $(BIN)/uv build --quiet --wheel --out-dir dist dist/*.tar.gz
	for machine in x86_64 aarch64; do \
		compiler="'$(ZIG)' cc -target $$machine-linux-gnu.$(OLDEST_GLIBC)"; \
		FSD_KERNEL=required CC="$$compiler" LDSHARED="$$compiler -shared -s" CFLAGS= LDFLAGS= CPPFLAGS= \
			_PYTHON_HOST_PLATFORM=linux-$$machine $(BIN)/uv build --quiet --wheel --out-dir dist dist/*.tar.gz \
			--config-setting=--build-option=--plat-name=manylinux_$(subst .,_,$(OLDEST_GLIBC))_$$machine || exit 1; \
	done
	ls dist

# All measurements; the tables are written to bench-results/ as JSON.
bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(MOTO_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
