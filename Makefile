PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: demo test lint

demo: .venv  ## the full pipeline on the built-in demo dataset: build/demo/submission.csv and its F2; TASK=multiclass
	$(RUN) build_kernel.py demo --out build/demo$(TASK:%=-%)$(TASK:%= --task %)

test: .venv lint  ## everything that CI runs
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

.venv: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: found Python %d.%d; wanted 3.11 or newer; run make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch .venv
