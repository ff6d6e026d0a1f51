# make demo       set up, then run the whole pipeline on the shipped sample (CPU, offline)
# make test       set up, then lint, type-check and test
# make test-long        what takes minutes: the demo, jobs, clusters of several nodes, every family's FlexAttention
# make test-faults      processes and nodes killed in the middle of synthesis, scoring, training and searches
# make test-multihost   what takes several hosts, wholly (root on Linux; several minutes)
# make docs             the documentation site, in site/
# make reliability      do every fault of docs/reliability.md to the real system, and write that page (an hour)
# make evidence         the experiment of docs/evidence.md (about an hour of one core; it can be interrupted)
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin
export PYTHON
# Tests and the demo never ask a hub, and DeepSpeed must not look for a GPU on a CPU machine.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# Two processes; tests/schedule.py divides the files.
TWO := -n 2 --dist loadscope
DOCS_VENV ?= .venv-docs
SITE ?= site
EVIDENCE_DATA ?= ../shared/data/alpaca_eval_pairs.jsonl.gz

.PHONY: demo test test-long test-faults test-multihost docs reliability evidence lint install install-dev clean

$(VENV)/.installed: pyproject.toml constraints.txt locks/cpu.txt .ci/install
	@.ci/install $(VENV) cpu
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt locks/cpu.txt locks/dev.txt .ci/install
	@.ci/install $(VENV) cpu,dev
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

demo: install
	$(OFFLINE) $(RUN)/mapl demo $(ARGS)

lint: install-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

test: lint
	$(OFFLINE) $(RUN)/python -m pytest $(TWO) $(ARGS)

test-long: install-dev
	$(OFFLINE) $(RUN)/python -m pytest -m long $(TWO) $(ARGS)

test-faults: install-dev
	$(OFFLINE) $(RUN)/python -m pytest -m faults $(TWO) $(ARGS)

test-multihost: install-dev
	$(OFFLINE) $(RUN)/python -m pytest tests/multihost -m "multihost or multihost_whole" $(ARGS)

# The site reads the sources, so its environment has no torch: the extra `docs` alone.
$(DOCS_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --quiet --constraint constraints.txt \
	  $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --site-dir $(SITE) $(ARGS)

reliability: install-dev
	$(OFFLINE) $(RUN)/python -m benchmarks.reliability --output docs/reliability.md $(ARGS)

# One thread: the models are too small for more.
evidence: install-dev
	$(OFFLINE) OMP_NUM_THREADS=1 $(RUN)/python -W ignore -m benchmarks.evidence --data $(EVIDENCE_DATA) \
	  --output runs/evidence --doc docs/evidence.md $(ARGS)

clean:
	rm -rf $(VENV) $(DOCS_VENV) $(SITE) runs .pytest_cache .mypy_cache .ruff_cache
