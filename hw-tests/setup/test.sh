#!/bin/bash
# Everything that CI runs. Each step is run whatever became of those before; the end is a summary:
# the time of each step, the slowest tests, and one line with the totals.
#
#   STEPS="tests lab"   runs only these
set -u
cd "$(dirname "$0")/../.." || exit 2
exec </dev/null

target=${CARGO_TARGET_DIR:-target}
logs=$target/test-logs
mkdir -p "$logs"
: >"$logs/times" && : >"$logs/steps"
passed=0 failed=0 skipped=0

# Unwinding everywhere: tests need it, and one choice means that nothing is built twice. What users
# run aborts (profile.release).
export CARGO_PROFILE_DEV_PANIC=unwind CARGO_TERM_COLOR=never
# The same cases in each run: what a change breaks shows with it, not with a later one by chance.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
if [ -n "${CI:-}" ]; then export CARGO_INCREMENTAL=0; fi

# wanted NAME: whether STEPS asks for it.
wanted() {
    case " ${STEPS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
}

# step NAME COMMAND..: runs it, keeps its output in a log, shows the output when it fails.
step() {
    local name=$1 start=$SECONDS status=0
    shift
    echo "== $name"
    "$@" >"$logs/$name" 2>&1 || status=$?
    printf '%5d s  %-10s %s\n' $((SECONDS - start)) "$name" \
        "$([ $status = 0 ] && echo ok || echo "FAILED ($status)")" >>"$logs/steps"
    [ $status = 0 ] || tail -n 200 "$logs/$name"
    return $status
}

# count NAME: one check without tests of its own.
count() {
    wanted "$1" || return 0
    if step "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# skip NAME WHY
skip() {
    wanted "$1" || return 0
    skipped=$((skipped + 1))
    echo "== $1: SKIPPED: $2"
    printf '%5s    %-10s skipped: %s\n' - "$1" "$2" >>"$logs/steps"
}

# add PASSED FAILED SKIPPED
add() {
    passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0})) skipped=$((skipped + ${3:-0}))
}

# What a run of `cargo test` (any number of programs) says in its log.
count_cargo_test() {
    local sums
    sums=$(awk '/^test result: / { p += $4; f += $6; s += $8 }
                END { print p + 0, f + 0, s + 0 }' "$1")
    # shellcheck disable=SC2086
    add $sums
    # A step that failed without a failed test did not build, or died.
    [ "$2" = 0 ] || [ "$(echo "$sums" | cut -d' ' -f2)" != 0 ] || failed=$((failed + 1))
    sed -n 's/^test \(.*\) \.\.\. ok <\([0-9.]*\)s>$/\2 \1/p' "$1" >>"$logs/times"
}

# What a JUnit file of nextest or hw-lab says; it holds one test case per line.
count_junit() {
    local file=$1
    sed -n 's/.*<testcase name="\([^"]*\)".* time="\([0-9.]*\)".*/\2 \1/p
            s/.*<testcase classname="[^"]*" name="\([^"]*\)" time="\([0-9.]*\)".*/\2 \1/p' \
        "$file" >>"$logs/times"
}

tests_nextest() {
    cargo nextest run --locked --workspace --profile ci
}

# Without nextest: the same tests through libtest. The runner's variable lets it report times.
tests_libtest() {
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    cargo test --locked --workspace --lib --bins --tests --no-run &&
        timeout -k 10 900 env "CARGO_TARGET_${triple}_RUNNER=env RUSTC_BOOTSTRAP=1" \
            cargo test --locked --workspace --lib --bins --tests --no-fail-fast \
            -- -Z unstable-options --report-time
}

tests() {
    local status=0
    if cargo nextest --version >/dev/null 2>&1; then
        step tests tests_nextest || status=$?
        local junit=target/nextest/ci/junit.xml summary # not under CARGO_TARGET_DIR
        summary=$(grep -E '^ *Summary ' "$logs/tests" | tail -n 1)
        number() {
            [[ $summary =~ ([0-9]+)\ $1 ]] && echo "${BASH_REMATCH[1]}" || echo 0
        }
        local bad=$(($(number failed) + $(number 'timed out')))
        add "$(number passed)" $bad "$(number skipped)"
        [ $status = 0 ] || [ $bad != 0 ] || failed=$((failed + 1))
        [ ! -f "$junit" ] || count_junit "$junit"
    else
        step tests tests_libtest || status=$?
        count_cargo_test "$logs/tests" $status
    fi
}

doc_tests() {
    local status=0
    step doctests cargo test --locked --workspace --doc || status=$?
    count_cargo_test "$logs/doctests" $status
}

lab() {
    local status=0
    lab_run() {
        cargo build --locked -p daemon -p cli -p hw-tests && "$target/debug/hw-lab"
    }
    step lab lab_run || status=$?
    grep -E '^(PASS|FAIL|SKIP|lab:)' "$logs/lab"
    local sums
    sums=$(awk '/^lab: .* skipped$/ { print $2, $4, $6 }' "$logs/lab")
    # shellcheck disable=SC2086
    add ${sums:-0 1 0}
    [ -z "$sums" ] || count_junit "$target/hw-lab/junit.xml"
}

! wanted install || step install hw-tests/setup/install.sh || skip install "packages are missing, see above"
count fmt cargo fmt --all --check
count clippy cargo clippy --locked --workspace --all-targets -- -D warnings
wanted tests && tests
wanted doctests && doc_tests
count rustdoc env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
for tool in deny machete; do
    if ! command -v cargo-$tool >/dev/null; then
        skip $tool "cargo-$tool is not installed (make check installs it)"
    elif [ $tool = deny ]; then
        count deny cargo deny --log-level warn check licenses bans sources
    else
        count machete cargo machete
    fi
done
# Every interleaving of the ring between threads, in a target folder of its own: the flag is global.
count loom env RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$target/loom" \
    cargo test --locked -p bdev --lib loom
count sim cargo run --profile sim --locked -p sim -- --seed 1 --seeds 300 --jobs 2
count mutants cargo run --profile sim --locked --features planted -p sim -- --mutants --jobs 2
wanted lab && lab

echo
echo "slowest tests:"
sort -rn "$logs/times" | head -n 15 | awk '{ printf "%8.2f s  ", $1; $1 = ""; print substr($0, 2) }'
echo "steps:"
cat "$logs/steps"
echo "logs are in $logs"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
