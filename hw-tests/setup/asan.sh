#!/bin/bash
# Tests the crates that hold unsafe code under AddressSanitizer, where a nightly is installed.
set -eu
cd "$(dirname "$0")/../.."

target=$(rustc -vV | sed -n 's/^host: //p')
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "asan: NOT RUN: no nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
# Registered buffers live as long as the process: leaks are not what is looked for.
export ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address
cargo +nightly test --target "$target" --tests -p bdev -p bdev-uring -p net-uring -p reactor
