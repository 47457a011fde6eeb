# `make help` lists the targets. Everything that needs more than Rust and a C linker installs it by
# itself (root or sudo), or says what is missing.
MAKEFLAGS += --no-print-directory
TARGET := $(or $(CARGO_TARGET_DIR),target)
# As in hw-tests/setup/test.sh: what one target built serves the next.
export CARGO_PROFILE_DEV_PANIC := unwind

# make sim SEEDS=n SEED=first JOBS=threads
SEEDS ?= 10000
SEED ?= 1
JOBS ?= $(shell nproc)
# make run STATE=directory
STATE ?= $(TARGET)/demo
# make bench RECORD=1 writes docs/performance.md; BENCH passes options on
RECORD ?=
BENCH ?=
# make crash KILLS=n SEED=first
KILLS ?= 200
# make powercut CYCLES=n SEED=first
CYCLES ?= 10
# make lab CASES="io crash"
CASES ?=

.PHONY: help run test check bench sim crash lab powercut asan clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start one node with a demo volume
	cargo build --release --locked -p daemon -p cli
	$(TARGET)/release/holdfastd demo --state-dir $(STATE)

test: ## all that CI runs: lints, tests, documentation, simulator, virtual machine (< 20 min)
	hw-tests/setup/test.sh

check: ## formatting, lints, licences, unused dependencies (installs cargo-deny and cargo-machete)
	hw-tests/setup/check.sh

bench: ## measure the table of docs/performance.md and compare (RECORD=1 writes it)
	cargo run --release --locked -p bench -- $(if $(RECORD),--record) $(BENCH)

sim: ## run the simulator from SEEDS=n seeds, SEED=first
	cargo run --profile sim --locked -p sim -- --seed $(SEED) --seeds $(SEEDS) --jobs $(JOBS)

lab: ## real kernels in a virtual machine against the daemon (CASES="words" selects)
	hw-tests/setup/install.sh
	cargo build --locked -p daemon -p cli -p hw-tests
	$(TARGET)/debug/hw-lab $(CASES)

crash: ## kill the daemon KILLS=n times under a verifying host, and check every block and the store
	KILLS=$(KILLS) FUZZ_SEED=$(SEED) cargo test --locked -p daemon --test process -- \
		--exact --nocapture kills::any_number_of_kills_loses_nothing_that_was_acknowledged

powercut: ## PostgreSQL on the daemon in a guest whose disk forgets: its power cut CYCLES=n times
	hw-tests/setup/install.sh
	cargo build --release --locked -p daemon -p cli
	cargo build --locked -p hw-tests
	$(TARGET)/debug/hw-lab --programs $(TARGET)/release --require \
		--power-cuts $(CYCLES) --seed $(SEED)

asan: ## the crates with unsafe code under AddressSanitizer (needs a nightly toolchain)
	hw-tests/setup/asan.sh

clean: ## remove what was built
	cargo clean
