# Two paths to one namespace; fio writes and verifies while each in turn is closed by the target.
. ./lib.sh
connect
find_controller
first=$controller
PORT=$SECOND connect
for candidate in /sys/class/nvme/nvme*; do
    case $candidate in */"$first") continue ;; esac
    if is "$candidate/subsysnqn" "$NQN"; then second=${candidate##*/}; fi
done

# state CONTROLLER STATE: whether the path through it has this state.
state() {
    for file in /sys/class/nvme/"$1"/nvme*c*n*/ana_state; do
        is "$file" "$2" || return 1
    done
}

until_true 60 state "$first" optimized
until_true 60 state "$second" optimized
fio --name=paths --filename="$path" --thread --ioengine=libaio --direct=1 --rw=randrw --bs=4k \
    --size=4m --iodepth=8 --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based \
    --runtime=600 --minimal >/tmp/fio &
fio=$!
running() {
    read -r _ _ _ _ writes _ <"/sys/block/${path##*/}/stat"
    [ "$writes" -gt "${before:-0}" ]
}
until_true 60 running
note running
until_true 60 state "$first" inaccessible
before=$writes
until_true 60 running
note on-second
until_true 60 state "$first" non-optimized
note first-back
until_true 60 state "$second" inaccessible
before=$writes
until_true 60 running
note on-first
until_true 60 state "$first" optimized
until_true 60 state "$second" optimized
before=$writes
until_true 60 running
kill "$fio"
wait "$fio" || true
# Its summary has the first error of the job in the fifth field.
grep '^3;' /tmp/fio >/tmp/summary
IFS=';' read -r _ _ _ _ error _ </tmp/summary
[ "$error" = 0 ] || fail "fio: $(cat /tmp/fio)"
disconnect
