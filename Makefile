# Two commands on a fresh machine: `make demo` and `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# Threads that spin while waiting take the core from the one that works.
export OMP_WAIT_POLICY = PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: help demo demo-fusion test test-slow test-faults test-page fuzz peers test-peers lint types contracts bench bench-check docs data env clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

env: $(VENV)/.made  ## the environment, from constraints.txt

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "multiway needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

demo: env        ## train CLIP on the bundled pictures, evaluate it, write runs/demo/report.html
	$(BIN)/multiway train clip --data emoji --out runs/demo
	$(BIN)/multiway report runs/demo
	$(BIN)/multiway search runs/demo "red fruit"
	@echo
	@echo "Report: runs/demo/report.html"
	@echo "Search: $(BIN)/multiway search runs/demo \"red fruit\""

demo-fusion: env ## train ALBEF on scenes, re-rank, guess words, write runs/fusion/report.html
	$(BIN)/multiway train albef --out runs/fusion
	$(BIN)/multiway eval runs/fusion --task rerank --data scenes:easy,objects=1-3@test
	$(BIN)/multiway report runs/fusion
	$(BIN)/multiway doctor runs/fusion
	@echo
	@echo "Report: runs/fusion/report.html"

test: env        ## lint, types, import contracts and the fast tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m 'not slow and not faults' -n 2 --dist loadfile

test-slow: env   ## the tests that have to learn something
	$(BIN)/python -m pytest -m slow

test-faults: env ## kills, full disks, damaged files, lost ranks, hostile input
	$(BIN)/python -m pytest -m faults tests/faults

test-page: env   ## the web page in headless Chromium, which has to be installed; KEEP=docs/images keeps screenshots
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	PAGE_KEEP=$(KEEP) $(BIN)/python -m pytest -m slow tests/serve/test_page_browser.py

fuzz: env        ## tests/faults/targets.py guided by coverage: make fuzz TARGET=shard SECONDS=60
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	PYTHONPATH=.:tests TARGET=$(or $(TARGET),shard) $(BIN)/python tests/faults/guided.py -max_total_time=$(or $(SECONDS),60) -rss_limit_mb=8192

peers: $(PEERS)/.made ## an environment with open_clip, timm, lightly and torchscale, which need torchvision

$(PEERS)/.made: pyproject.toml constraints.txt constraints-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-peers.txt --no-build-isolation -e '.[peers,bench]'
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-peers.txt --no-deps torchscale lightly pycocoevalcap pycocotools torchmetrics lightning-utilities
	touch $@

test-peers: peers ## equality with those libraries
	$(PEERS)/bin/python -m pytest tests/peers

# With `make peers` there are more to compare with.
BENCH = $(if $(wildcard $(PEERS)/.made),$(PEERS)/bin/python,$(BIN)/python)

bench: env       ## side by side with the peers, every method's step, views, retrieval; and the memory of the chunked loss
	$(BENCH) benchmarks/run.py $(if $(ONLY),--only $(ONLY))
	$(if $(ONLY),,$(BIN)/python benchmarks/itc_memory.py)
	$(if $(ONLY),,$(BIN)/python benchmarks/attention.py --quick)

bench-check: env ## the same against benchmarks/baseline.json; fails if a ratio or a share of the machine fell
	$(BENCH) benchmarks/run.py --check benchmarks/baseline.json

docs: env        ## the documentation site, in site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

data: env        ## rebuild the bundled pictures (needs Debian's fonts-noto-color-emoji, unicode-data, unicode-cldr-core)
	$(BIN)/python scripts/build_emoji.py

clean:           ## what was made, but not the runs
	rm -rf $(VENV) $(PEERS) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
