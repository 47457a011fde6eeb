#!/bin/bash
# Formatting, lints, licences and unused dependencies. Installs the two cargo tools it needs, once.
set -eu
cd "$(dirname "$0")/../.."

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
for tool in cargo-deny cargo-machete; do
    command -v "$tool" >/dev/null || cargo install --locked --quiet "$tool"
done
cargo deny --log-level warn check licenses bans sources
cargo machete
cargo test --locked --quiet -p daemon --test tidy
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo test --locked --quiet -p bdev --lib loom
