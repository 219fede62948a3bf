PYTHON ?= python3
BIN := .venv/bin
# Many tests wait for processes and servers; a file's tests stay together and share its fixtures.
TOGETHER := -n 3 --dist loadfile
CORE := .venv/core.stamp
DEV := .venv/dev.stamp

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(CORE) ## set up .venv and run the quickstart to a finished dataset
	$(BIN)/stillroom run quickstart

test: $(DEV) ## set up .venv and run every test
	$(BIN)/pytest $(TOGETHER)

check: $(DEV) ## ruff, mypy, import layers, unit and property tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q $(TOGETHER) tests/unit tests/property tests/golden

golden: $(DEV) ## record golden rows of new versions; never overwrites
	$(BIN)/python tests/golden/record.py

docs: $(DEV) ## write the generated pages of docs/
	$(BIN)/python scripts/make_docs.py

bench: $(DEV) ## speed and memory against peers and limits
	for bench in $$(grep -l "__main__" benches/*.py benches/*/*.py); do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

models: $(DEV) ## retrain the embedded models from nothing (refuses to overwrite)
	$(BIN)/python scripts/make_models.py

$(CORE): pyproject.toml setup.py $(shell find src -name '*.[ch]')
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e .
	touch $@

$(DEV): $(CORE) constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -U 'pip>=25.1'
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --group dev -e '.[reasoning-gym,study,hub,stackexchange]'
	touch $@

.PHONY: help demo test check golden docs bench models
