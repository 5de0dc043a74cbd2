# Every target sets up what it needs in .venv; nothing is installed twice.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

# Two threads that wait actively on two cores slow each other down.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL = help
.PHONY: help setup demo test test-fast check format bench docs wheel wheel-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## create .venv and install wsss with its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "wsss needs Python 3.10 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing (on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV) (several GB with PyTorch; a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## data, CAM and CLIMS, pseudo masks, segmentation, scores and a report: about 10 minutes on 2 cores
	$(BIN)/wsss demo --out demo

test: $(STAMP) ## all tests but those that need an accelerator or foreign data; the wheel too
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)
	$(MAKE) --no-print-directory wheel-test

test-fast: $(STAMP) ## the unit tests
	$(BIN)/python -m pytest -m "not gpu and not slow" $(ARGS)

check: $(STAMP) ## lint, spelling, types
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/codespell src docs recipes README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/mypy

format: $(STAMP) ## mend what ruff can mend
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: $(STAMP) ## speed and memory, each beside the simplest correct version; adds rows to results/benchmarks.csv
	@for file in benchmarks/*.py; do case $$file in */record.py|*/timed_steps.py) ;; *) echo "== $$file"; $(BIN)/python $$file || exit 1 ;; esac; done

docs: $(STAMP) ## bring the generated tables of README and docs up to date with results/
	$(BIN)/python -m wsss.report.tables README.md docs

wheel: $(STAMP) ## build dist/*.whl
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist . > /dev/null
	@ls -l dist

wheel-test: wheel ## install the wheel into a clean environment, outside the clone, and use it
	bash tests/wheel.sh $(BIN)/python dist/*.whl
