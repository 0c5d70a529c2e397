# Serin. `make demo` and `make test` do all of their own set-up; `make help` lists the rest.

CARGO ?= cargo
# Debian packages, kubectl versions and the Python environment that tests need live here, outside the clone.
export SERIN_CACHE ?= $(HOME)/.cache/serin
SUITE ?= all
SCENARIO ?= wrong

.PHONY: help demo test test-cluster check bench verify setup build gen fuzz

help: ## Lists the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: tools-rust ## Builds the binary (release).
	$(CARGO) build --release --locked -p serin

demo: build ## Ships a better model, then a wrong one, on real data. SCENARIO=wrong|same|errors|distribution|labels.
	$(CARGO) run --release --locked -q -p serin -- demo --scenario $(SCENARIO)

setup: tools-rust ## Installs what the tests need and this machine lacks (Debian packages, kubectl versions, a Python environment).
	tests/setup/setup.sh

test: setup ## Runs all tests but the long ones.
	$(CARGO) build --release --locked -p serin
	$(CARGO) test --release --locked --workspace

test-cluster: tools-rust ## Plays the API's corpus on a real Kubernetes control plane, which it builds once (Go). SERIN_RECORD=1 records it.
	tests/cluster/build.sh
	$(CARGO) test --release --locked -p serin-apiserver --test conformance -- --ignored --nocapture

check: tools-rust ## Format, lints, generated files.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) run --release --locked -q -p xtask -- check

gen: tools-rust ## Writes the generated files.
	$(CARGO) run --release --locked -q -p xtask -- gen

bench: build ## Side-by-side benchmarks. SUITE=gateway|serving|all; RUNS=1 RUN_SECONDS=2 for a quick look.
	bench/run.sh $(SUITE)

fuzz: ## Ten minutes of each fuzz target.
	fuzz/run.sh

verify: test test-cluster fuzz ## Everything: tests, the whole kill matrix, fuzzing, the long store test, every demo scenario, benchmarks.
	SERIN_STORE_RUNS=10000 SERIN_KILL_POINTS=20 $(CARGO) test --release --locked --workspace -- --include-ignored
	for scenario in wrong same errors distribution labels; do $(MAKE) demo SCENARIO=$$scenario || exit 1; done
	$(MAKE) bench

.PHONY: tools-rust
tools-rust:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"; exit 1; }
	@command -v cc >/dev/null || { echo "cc is missing: install a C compiler (apt-get install gcc)"; exit 1; }
