# The front door. Every target installs what it needs by itself: Debian packages by apt when they are missing,
# Python packages into .venv. STILLPOINT_LAB_ID selects the lab (default 0).

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build
# Debian's minimal installations have no other UTF-8 locale, and Ansible needs one.
export LC_ALL := C.UTF-8
export STILLPOINT_LAB_ID ?= 0

BOOTSTRAP := tests/tools/bootstrap.sh
STAGES := .venv/bin/python tests/tools/stages.py
LAB := .venv/bin/python tests/lab/lab.py
# For `make test`, in minutes; after that what still runs is ended, so that .ci/run stays below an hour.
MINUTES := 54

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @ 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv system ## Checkpoint a running container, destroy it, restore it on real hosts
	@$(STAGES) demo

.PHONY: test
test: venv system checks ## Everything: lint, unit, sanity, molecule, integration; takes the lab down at the end
	@$(STAGES) --lab-down --minutes $(MINUTES) lint unit molecule sanity integration

.PHONY: lint
lint: venv ## ruff, mypy, yamllint, ansible-lint, changelog and documentation
	@$(STAGES) lint

.PHONY: unit
unit: venv ## Tests of pure logic
	@$(STAGES) unit

.PHONY: sanity
sanity: venv checks ## ansible-test sanity on a copy of the checkout
	@$(STAGES) sanity

.PHONY: molecule
molecule: venv system ## The Molecule scenario `default` on the lab
	@$(STAGES) molecule

.PHONY: integration
integration: venv system ## The integration tests on the lab
	@$(STAGES) integration

.PHONY: extended
extended: venv system promtool browser ## The integration tests that make test has no time for
	@$(STAGES) extended

.PHONY: machine
machine: venv system machines ## The integration tests on a virtual machine, which is emulated: minutes
	@$(STAGES) machine

.PHONY: bench
bench: venv system ## Measure against Podman, Docker and bare CRIU
	@$(STAGES) bench

.PHONY: lab
lab: venv system ## Start the test hosts and leave them up
	@$(LAB) up

.PHONY: lab-down
lab-down: venv ## Stop the test hosts and remove every trace of them
	@$(LAB) down

.PHONY: build
build: venv ## Build the archive for Galaxy into .build/dist and prove that it installs
	@tests/tools/build.sh

.PHONY: venv system checks machines promtool browser
venv: ## Make .venv
	@$(BOOTSTRAP) venv
system:
	@$(BOOTSTRAP) system
checks:
	@$(BOOTSTRAP) checks
machines:
	@$(BOOTSTRAP) machines
promtool:
	@$(BOOTSTRAP) promtool
browser:
	@$(BOOTSTRAP) browser

.PHONY: clean
clean: ## Remove what was built here (not the lab's cache; run `make lab-down` first when the lab is up)
	rm -rf .venv .build .ansible .cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
