# `make` lists what there is. `make course` and `make test` set everything up by themselves.
PYTHON ?= python3
BIN := .venv/bin
BOOK := _config.yml _toc.yml $(shell find book vaecourse -type f -not -path '*__pycache__*')
STAMPS := _build/.stamps

.DEFAULT_GOAL := help
.PHONY: help course test check book serve lab bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

course: book ## build the book, release the assignments, grade the sample class
	@$(BIN)/vaecourse release
	@$(BIN)/vaecourse sample
	@$(BIN)/vaecourse grade
	@$(BIN)/vaecourse feedback
	@$(BIN)/vaecourse export
	@echo
	@echo "Read   open _build/html/index.html in a browser, or: make serve"
	@echo "Do     open _course/release/kl/kl.ipynb in Jupyter, or: make lab"
	@echo "Teach  open _course/marks.csv and _course/feedback, or mark the derivations: $(BIN)/nbgrader --help"

test: check book $(STAMPS)/browser ## check style and types, then run every test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

check: .venv/.ready ## style, types and spelling
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/codespell

book: $(STAMPS)/book ## build the book into _build/html

serve: book ## show the book at http://localhost:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

lab: .venv/.ready ## open Jupyter on the released assignments
	@$(BIN)/vaecourse release
	$(BIN)/jupyter lab --notebook-dir _course/release

bench: .venv/.ready ## run the benchmarks on MNIST and write benchmarks/results
	$(BIN)/python -m benchmarks.mnist_vae
	$(BIN)/python -m benchmarks.epoch_speed

clean: ## delete what the build made; keeps _course, where submissions and marks are
	rm -rf _build

lock: .venv/.ready ## compile requirements.txt anew from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  pyproject.toml --output-file requirements.txt

.venv/.ready: requirements.txt pyproject.toml
	@echo "Installing the packages of requirements.txt into .venv (several GB, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(STAMPS)/book: .venv/.ready $(BOOK) package-lock.json
	@$(BIN)/python book/_ext/npm_ci.py
	@echo "Building the book: _build/book.log tells how it goes"
	@mkdir -p $(@D)
	@$(BIN)/jupyter-book build . -W -n --keep-going > _build/book.log 2>&1 \
	  || { cat _build/book.log; exit 1; }
	@touch $@

$(STAMPS)/browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
	  || command -v google-chrome > /dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	       && apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } \
	  || { echo "The browser tests need Chromium or Chrome: install one, then run make test again." >&2; exit 1; }
	@mkdir -p $(@D) && touch $@
