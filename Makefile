# Every target works alone from a clean clone: each makes .venv first when it is missing or out of date.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
PYTHON_VENV := $(VENV)/bin/python
# Named after the sourced distribution, so that sourcing another one makes the environment again.
STAMP := $(VENV)/.up-to-date-with-$(or $(ROS_DISTRO),wheels)

# Shared memory large enough for camera images: without it Fast DDS loses about every second raw frame.
export FASTRTPS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/fastdds.xml

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: venv
venv: $(STAMP) ## Make .venv: pinned requirements, ROS (or the sourced distribution's), this package

$(STAMP): $(wildcard requirements/*.txt tools/messages/* tools/messages/*/* tools/messages/*/msg/*) tools/make_venv.sh tools/build_messages.sh setup.py
	@VENV=$(VENV) tools/make_venv.sh
	@rm -f $(VENV)/.up-to-date-with-*
	@touch $@

.PHONY: demo
demo: venv ## Record a drive, map it, localise a second drive live over ROS 2, show the result
	$(PYTHON_VENV) -m localizer_ros.demo

.PHONY: test
test: lint types ## Everything that must pass: lint, types, all tests
# Files of tests beside each other, each of one thread; then live nodes, which need the machine for themselves.
	OMP_NUM_THREADS=1 $(PYTHON_VENV) -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not ros"
	$(PYTHON_VENV) -m pytest -q -m ros

# The rooms that the inner loop tests: `make quick ROOMS="datasets cli"` for others.
ROOMS := core geometry smoothing

.PHONY: quick
quick: venv ## The inner loop: style, floors and sizes, and the quick tests of ROOMS (core geometry smoothing)
	$(PYTHON_VENV) -m ruff check
	$(PYTHON_VENV) tools/check_house.py
	$(PYTHON_VENV) -m pytest -q -m "not slow and not ros" $(addprefix test/,$(ROOMS))

# Of every line and branch of these: test/inference/test_tensorrt.py drives them against the double.
TENSORRT := $(foreach file,backend engine library,--cov=localizer_ros.inference.tensorrt_$(file))

.PHONY: tensorrt
tensorrt: venv ## Check the TensorRT back end against NVIDIA's bindings (150 MB, no GPU), and that every line is tested
	PYTHON=$(PYTHON_VENV) tools/make_tensorrt_venvs.sh
	$(PYTHON_VENV) -m pytest -q -rs test/inference/test_tensorrt.py test/inference/test_tensorrt_api.py \
		$(TENSORRT) --cov-branch --cov-report=term-missing --cov-fail-under=100

.PHONY: scenarios
scenarios: venv ## Try all faults of test/scenarios on the node, in simulated time and over DDS; a page of results
	$(PYTHON_VENV) tools/scenarios.py

.PHONY: lint
lint: venv ## Check style, formatting, and the floors and sizes of the code
	$(PYTHON_VENV) -m ruff check
	$(PYTHON_VENV) -m ruff format --check
	$(PYTHON_VENV) tools/check_house.py

.PHONY: types
types: venv ## Check types (strict in the packages named in pyproject.toml)
	$(PYTHON_VENV) -m mypy

.PHONY: format
format: venv ## Reformat the code and apply the safe fixes
	$(PYTHON_VENV) -m ruff check --fix
	$(PYTHON_VENV) -m ruff format

.PHONY: colcon
colcon: venv ## Build and install with colcon into build/ and install/
	$(VENV)/bin/colcon build --paths .

.PHONY: lock
lock: venv ## Resolve requirements/*.in into the pinned *.txt again
	tools/lock.sh $(VENV)

.PHONY: clean
clean: ## Remove everything that the other targets made
	rm -rf $(VENV) .tensorrt-api build install log *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
