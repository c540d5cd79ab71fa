# Every target creates what it needs: python3, make and git are enough to begin with.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := .venv-bench
PAGE := _build/html/index.html

.DEFAULT_GOAL := help
# Jupyter sets this in its terminals; a build started there would show progress bars in the pages.
unexport JPY_SESSION_NAME

.PHONY: help book test test-fast test-full lint audit bench colab pdf coursework serve picture weights repository clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

book: $(INSTALLED)  ## build the book and say which page to open
	$(BIN)/jupyter-book build book --config _config.yml --toc "$(CURDIR)/_toc.yml" --path-output . -W -n --keep-going
	@echo "The book is ready. Open file://$(CURDIR)/$(PAGE) or run: make serve"

test: $(INSTALLED)  ## unit tests, every notebook, then the built site
	$(BIN)/pytest

test-fast: $(INSTALLED)  ## unit tests only
	$(BIN)/pytest tests -m "not site" --numprocesses auto --maxprocesses 4 --dist loadgroup

test-full: export SCOREBOOK_SEEDS ?= 200
test-full: $(INSTALLED)  ## all tests, with 200 seeds for each answer to the coursework (half an hour and more)
	$(BIN)/pytest

lint: $(INSTALLED)  ## style, import rule, notebooks without outputs, consistent environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	git ls-files -z -- '*.ipynb' | xargs -0 -r $(BIN)/nbstripout --verify --keep-id
	$(BIN)/pip check

bench: $(INSTALLED) $(BENCH)/.installed  ## measure scorebook beside its peers on this idle machine (ONLY="quality overhead")
	$(BENCH)/bin/python -m benchmarks.run $(ONLY)

audit:  ## known vulnerabilities of what is pinned (a warning where nobody can be asked)
	@$(PYTHON) tools/audit.py

colab: $(INSTALLED)  ## run the chapters on the versions that Colab ships (CHAPTERS="langevin sde")
	$(BIN)/python tools/colab.py $(CHAPTERS)

pdf: book  ## print the whole book into one PDF, with Chromium
	$(BIN)/python tools/book_pdf.py

serve: book  ## build the book and serve it on this machine (PORT=8000)
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

picture: book  ## take the README's picture from the tour
	$(BIN)/python tools/picture.py

coursework: $(INSTALLED)  ## write the student notebooks of the assignments
	$(BIN)/python tools/assignments.py generate

weights: $(INSTALLED)  ## train the networks that ship with the package anew (NAMES="digits")
	$(BIN)/python tools/pretrain.py $(NAMES)

repository: $(INSTALLED)  ## set the address of this repository (URL=..., default: where it was cloned from)
	$(BIN)/python tools/repository.py $(URL)

clean:  ## remove what was built; the environment in .venv stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scorebook needs Python 3.11 or newer, and $(PYTHON) is not. Name one that is: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(BENCH)/.installed: benchmarks/requirements.txt pyproject.toml
	@test -x $(BENCH)/bin/pip || $(PYTHON) -m venv --clear $(BENCH)
	$(BENCH)/bin/pip install --quiet --requirement benchmarks/requirements.txt
	$(BENCH)/bin/pip install --quiet --no-deps --editable .
	@touch $@
