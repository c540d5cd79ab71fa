# Every target creates what it needs: python3, make and git are enough to begin with.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := .venv-bench
MUTANTS := .venv-mutants
LOWEST := .venv-lowest
PAGE := _build/html/index.html

.DEFAULT_GOAL := help
# Two targets at a time would build the same pages.
.NOTPARALLEL:

# What a user has set for Python, pytest and Jupyter is for the user's own work, and so is the repository for which git
# runs a hook; of what is set for pip, only where packages come from and how much it says.
PIP_MAY := INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX TRUSTED_HOST CERT CLIENT_CERT PROXY KEYRING_PROVIDER CACHE_DIR
PIP_MAY += NO_CACHE_DIR DEFAULT_TIMEOUT TIMEOUT RETRIES DISABLE_PIP_VERSION_CHECK CONFIG_FILE NO_INPUT VERBOSE
KEPT := PYTHON PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED $(addprefix PIP_,$(PIP_MAY))
unexport $(filter-out $(KEPT),$(filter PYTHON% PYTEST_% IPYTHON% JUPYTER% JPY_% MPL% MATPLOTLIB% PIP_%,$(.VARIABLES)))
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export PYTHONUTF8 := 1
export PYTHONNOUSERSITE := 1
export PIP_USER := 0

.PHONY: help book test test-fast test-full lowest lint places mutants audit bench colab pdf translate chinese chinese-pdf chinese-notebooks coursework leaderboard serve picture questions slides live weights repository clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

book: $(INSTALLED)  ## build the book and say which page to open
	$(BIN)/python $(BIN)/jupyter-book build book --config _config.yml --toc "$$PWD/_toc.yml" --path-output . -W -n --keep-going
	@$(BIN)/python tools/chinese.py --publish
	@$(BIN)/python -c 'import pathlib; print("The book is ready. Open", pathlib.Path("$(PAGE)").resolve().as_uri(), "or run: make serve")'

# Two at a time; the site after all else, for it is built from the outputs of the notebooks. Pytest ends with 5 where it
# has found no test, with 2 where it was interrupted.
TWO_AT_A_TIME = ended=5; for part in "not site" site; do \
	now=0; $(BIN)/python -m pytest -m "$$part" --numprocesses 2 --dist loadgroup $(TESTS) || now=$$?; \
	case $$now in (0) test $$ended != 5 || ended=0 ;; (2) exit 2 ;; (5) ;; (*) ended=$$now ;; esac; done; exit $$ended

test: $(INSTALLED)  ## unit tests, every notebook, then the built site (TESTS=tests/test_sde.py: some)
	@$(TWO_AT_A_TIME)

test-fast: $(INSTALLED)  ## unit tests only
	$(BIN)/python -m pytest tests -m "not site" --numprocesses auto --maxprocesses 4 --dist loadgroup

test-full: export SCOREBOOK_SEEDS ?= 200
test-full: $(INSTALLED)  ## all tests, with 200 seeds for each answer to the coursework (half an hour and more)
	@$(TWO_AT_A_TIME)

lowest: $(LOWEST)/.installed  ## unit tests on the oldest versions that pyproject.toml allows (gigabytes, the first time)
	$(LOWEST)/bin/python -m pytest tests -m "not site" --numprocesses auto --maxprocesses 4 --dist loadgroup

lint: $(INSTALLED)  ## style, types, import rule, notebooks without outputs, consistent environment
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/python $(BIN)/lint-imports
	$(BIN)/python tools/sources.py '*.ipynb' | xargs $(BIN)/python -m nbstripout --verify --keep-id
	$(BIN)/python -m pip check

places:  ## try clones with spaces, copied, without git, of other users (ten minutes)
	@$(PYTHON) tools/places.py

mutants: $(MUTANTS)/.installed  ## put small faults into the modules and count which the tests notice (MODULES="langevin" SAMPLE=40)
	$(MUTANTS)/bin/python -m pytest -q -p no:cacheprovider tests/test_mutants.py
	$(MUTANTS)/bin/python tools/mutants.py $(MODULES) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED) $(BENCH)/.installed  ## measure scorebook beside its peers on this idle machine (ONLY="quality overhead")
	$(BENCH)/bin/python -m benchmarks.run $(ONLY)

audit:  ## known vulnerabilities of what is pinned (a warning where nobody can be asked)
	@$(PYTHON) tools/audit.py

colab: $(INSTALLED)  ## run the chapters on the versions that Colab ships (CHAPTERS="langevin sde")
	$(BIN)/python tools/colab.py $(CHAPTERS)

pdf: book  ## print the whole book into one PDF, with Chromium
	$(BIN)/python tools/book_pdf.py

translate: $(INSTALLED)  ## bring the Chinese catalogues up to date and list what is left (PAGES="langevin": what, line by line)
	$(BIN)/python tools/translations.py $(PAGES)

chinese: $(INSTALLED)  ## build the Chinese edition, a draft while it is not whole, from the outputs of make book (PAGES="langevin")
	$(BIN)/python tools/chinese.py $(PAGES)

chinese-pdf: chinese  ## print the Chinese edition into one PDF
	$(BIN)/python tools/book_pdf.py _build/chinese/html _build/scorebook-zh.pdf

chinese-notebooks: $(INSTALLED)  ## write the Chinese notebooks for Colab (PAGES="langevin" FOLDER=... RUN=1: and run them)
	$(BIN)/python tools/chinese.py --notebooks $(if $(FOLDER),"$$FOLDER",locale/zh_CN/notebooks) $(if $(RUN),--run) $(PAGES)

serve: book  ## build the book and serve it on this machine (PORT=8000)
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

picture: book  ## take the README's picture from the tour
	$(BIN)/python tools/picture.py

coursework: $(INSTALLED)  ## write the student notebooks of the assignments (FOLDER=course)
	$(BIN)/python tools/assignments.py generate $(if $(FOLDER),"$$FOLDER")

leaderboard: $(INSTALLED)  ## hold the entries of the open project against fresh laws (FOLDER=entries)
	$(BIN)/python tools/leaderboard.py "$(if $(FOLDER),$$FOLDER,entries)"

questions: $(INSTALLED)  ## write the question bank for Moodle (FOLDER=...)
	$(BIN)/python tools/questions.py $(if $(FOLDER),"$$FOLDER")

slides: book  ## cut a deck of slides from each chapter, with the numbers of its last run
	$(BIN)/python tools/slides.py

live: $(INSTALLED)  ## bundle the figures that live, after a change in scorebook/lab/live (STILLS=1: and their pictures; TIMES=1: only time their steps)
	$(BIN)/python tools/live.py $(if $(TIMES),--times,$(if $(STILLS),--stills))

weights: $(INSTALLED)  ## train the networks that ship with the package anew (NAMES="digits"; REMEASURE=1: only their cards; COMPARE=120: only what they are held against)
	$(BIN)/python tools/pretrain.py $(NAMES) $(if $(REMEASURE),--remeasure) $(if $(COMPARE),--compare $(COMPARE))

repository: $(INSTALLED)  ## set the address of this repository (URL=..., default: where it was cloned from; BRANCH=...)
	$(BIN)/python tools/repository.py $(if $(URL),"$$URL") $(if $(BRANCH),--branch "$$BRANCH")

clean:  ## remove what was built; the environment in .venv stays, and so does what you wrote
	@$(PYTHON) tools/generated.py

# Scripts are started through Python, for the line that names their interpreter knows no spaces and no long paths, and
# leads to another folder when this one has been moved. Such an environment is made anew, and so is one that does not
# start or has another Python than PYTHON=... asks for.
WHICH := -I -c 'import sys; print(sys.version_info[:2])'
ASKED := $(filter-out file default,$(origin PYTHON))
define stale
$(shell \
	case "$$(sed -n '/^command = /p' $(1)/pyvenv.cfg 2>/dev/null)" in (''|*" $$(pwd -P)/$(1)") ;; (*) echo moved; exit ;; esac; \
	$(1)/bin/python -I -c 'import pip' >/dev/null 2>&1 || { echo absent; exit; }; \
	test -z "$(ASKED)" || test "$$($(PYTHON) $(WHICH) 2>/dev/null)" = "$$($(1)/bin/python $(WHICH))" || echo other)
endef
ifneq ($(call stale,$(VENV)),)
$(INSTALLED): $(VENV)-anew
endif
ifneq ($(call stale,$(BENCH)),)
$(BENCH)/.installed: $(BENCH)-anew
endif
ifneq ($(call stale,$(MUTANTS)),)
$(MUTANTS)/.installed: $(MUTANTS)-anew
endif
ifneq ($(call stale,$(LOWEST)),)
$(LOWEST)/.installed: $(LOWEST)-anew
endif

.PHONY: $(VENV)-anew $(BENCH)-anew $(MUTANTS)-anew $(LOWEST)-anew
$(VENV)-anew $(BENCH)-anew $(MUTANTS)-anew $(LOWEST)-anew:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scorebook needs Python 3.11 or newer, and $(PYTHON) is not. Name one that is: make PYTHON=python3.12 ..."; exit 1; }
	@test ! -e $(@:-anew=) || echo "The environment in $(@:-anew=) is of another folder or Python: it is made anew."
	@rm -rf $(@:-anew=)
	@$(PYTHON) -m venv $(@:-anew=) || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(INSTALLED): requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@$(BIN)/python tools/namesake.py
	@touch $@

$(BENCH)/.installed: benchmarks/requirements.txt pyproject.toml
	$(BENCH)/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps --editable .
	@$(BENCH)/bin/python tools/namesake.py
	@touch $@

# Each lower bound of pyproject.toml as a pin; it needs a Python for which wheels of that age exist.
$(LOWEST)/.installed: requirements.txt pyproject.toml tools/lowest.py
	$(LOWEST)/bin/python tools/lowest.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --requirement $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --editable .
	@$(LOWEST)/bin/python tools/namesake.py
	@touch $@

# It sees what is installed in the other environment, and adds only the tool.
$(MUTANTS)/.installed: $(INSTALLED) tests/mutants-requirements.txt
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(MUTANTS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	$(MUTANTS)/bin/python -m pip install --quiet --requirement tests/mutants-requirements.txt
	@touch $@
