# `make` tells what there is. A fresh Debian 12 or 13 needs make and a Rust toolchain (rustup) beforehand; the rest is
# installed or named by python-wasm/deps.sh.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Where rustup puts cargo, for a shell that has not read its profile since.
export PATH := $(PATH):$(HOME)/.cargo/bin

# A fresh machine has no cc; the guest's build has brought clang by the time that cargo looks for it.
CARGO := $(if $(shell command -v cc),,env CC=clang-19 \
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=clang-19 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=clang-19) cargo
PYTHON ?= python3
PREFIX ?= /usr/local
WASGI := target/debug/wasgi

# Folders of packages, each with the requirements.txt that fills it.
EXAMPLES := $(patsubst %/requirements.txt,%,$(wildcard examples/*/requirements.txt))
PACKAGES := $(EXAMPLES:%=%/packages/.installed) target/test-packages/.installed

say = @printf '\n== %s\n' "$(1)"

.PHONY: help
help: ## This list
	@echo 'Start with `make run`, then open http://127.0.0.1:8000/'; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: run
run: build packages ## Build everything and serve examples/hello on http://127.0.0.1:8000
	@exec $(WASGI) serve examples/hello/app.toml $(ARGS)

.PHONY: test
test: ## Everything: formatting, lints, policy, unit and end-to-end tests, CPython's own tests
	$(call say,formatting)
	@$(MAKE) check-fmt
	$(call say,the Python guest)
	@$(MAKE) python
	$(call say,lints)
	@$(MAKE) lint
	$(call say,licences and sources of dependencies)
	@$(MAKE) policy
	$(call say,packages of the examples)
	@$(MAKE) packages
	$(call say,programs that tests run beside wasgi)
	@$(MAKE) test-tools
	$(call say,unit and end-to-end tests)
	@$(MAKE) test-rust
	$(call say,broken input for all that is read from the network)
	@$(MAKE) fuzz
	$(call say,CPython's own tests in the guest)
	@$(MAKE) test-python
	$(call say,all is well)

.PHONY: test-rust
test-rust: python packages target/promtool ## Unit tests, and end-to-end tests of the real binary
	@.ci/cargo-test $(CARGO) test --workspace --locked --no-fail-fast $(ARGS)

.PHONY: fuzz
fuzz: ## The codecs under libFuzzer, FUZZ_SECONDS=10 for each wire; TARGETS=fastcgi narrows it
	@CARGO="$(CARGO)" crates/protocol/fuzz/run.sh $(TARGETS)

.PHONY: test-tools
test-tools: ## Programs that tests run beside wasgi: web servers, supervisor, a validator for Kubernetes
	@tests/deps.sh

.PHONY: test-python
test-python: python ## CPython's own tests, inside the guest
	@test -x $(WASGI) || $(CARGO) build --locked
	@$(PYTHON) python-wasm/run_tests.py --wasgi "$(CURDIR)/$(WASGI) python" $(ARGS)

.PHONY: build
build: python ## wasgi itself, into target/debug
	@$(CARGO) build --locked

.PHONY: python
python: ## CPython for WebAssembly, into target/python; installs what its build needs
	@python-wasm/build.sh

.PHONY: packages
packages: $(PACKAGES) ## What the examples and tests import, as their requirements.txt say

# Into a new folder first: one that was left half full would not be noticed.
install_packages = \
	set -- "$(@D)" "$<"; echo "installing $$2 into $$1"; \
	rm -rf "$$1.new"; mkdir -p "$$1.new"; \
	$(PYTHON) -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore --no-compile \
		--target "$$1.new" -r "$$2" || { echo "pip could not install $$2: check the network, then try again" >&2; exit 1; }; \
	touch "$$1.new/.installed"; rm -rf "$$1"; mv "$$1.new" "$$1"

examples/%/packages/.installed: examples/%/requirements.txt | python
	@$(install_packages)

target/test-packages/.installed: tests/apps/requirements.txt | python
	@$(install_packages)

target/promtool: tests/promtool.sh
	@$< $@

.PHONY: fmt
fmt: ## Format the Rust code
	@$(CARGO) fmt --all

.PHONY: check-fmt
check-fmt: ## Is the Rust code formatted?
	@$(CARGO) fmt --all --check || { echo 'not formatted: run `make fmt`' >&2; exit 1; }

.PHONY: lint
lint: ## Clippy, warnings denied
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: policy
policy: ## Licences, sources and bans of deny.toml, without further tools
	@$(PYTHON) .ci/policy.py

.PHONY: deny
deny: ## The whole of deny.toml, with security advisories; needs cargo-deny
	@command -v cargo-deny >/dev/null || { \
		echo 'cargo-deny is missing: `cargo install --locked cargo-deny` builds it in some minutes' >&2; exit 1; }
	@cargo deny --locked check

.PHONY: release
release: python ## An optimised wasgi, into target/release
	@$(CARGO) build --locked --release

.PHONY: bench
bench: release ## wasgi beside uWSGI, Granian and Gunicorn: see bench/README.md; SECONDS=2 APPS=hello narrows it
	@bench/setup.sh
	@$(CARGO) build --quiet --locked --release --manifest-path bench/Cargo.toml --target-dir target/bench/build
	@target/bench/build/release/wasgi-bench $(PART) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(APPS),--apps $(APPS)) $(if $(SERVERS),--servers $(SERVERS)) \
		$(if $(TENANTS),--tenants $(TENANTS)) $(ARGS)

.PHONY: bench-crates
bench-crates: export CRITERION_HOME := $(CURDIR)/target/bench/criterion
bench-crates: python packages ## What the parts cost: environ encoding, guest calls, rewind, new instances
	@$(CARGO) bench --locked --manifest-path bench/Cargo.toml --target-dir target/bench/build --bench environ
	@$(CARGO) bench --locked --manifest-path bench/Cargo.toml --target-dir target/bench/build --bench requests

.PHONY: install
install: release ## The optimised wasgi and its Python, into PREFIX (default /usr/local)
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/lib/wasgi/python"
	install target/release/wasgi "$(DESTDIR)$(PREFIX)/bin/wasgi"
	cp -R target/python/python.wasm target/python/lib target/python/VERSION "$(DESTDIR)$(PREFIX)/lib/wasgi/python/"
