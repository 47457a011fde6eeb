# nvme-cli's own command for everything that the target does by itself, and what is said of it
# afterwards.
. ./lib.sh
connect
find_controller
bytes=65536
blocks=$((bytes / BLOCK_SIZE))
dd if=/dev/urandom of=/tmp/data bs=$bytes count=1 status=none
dd if=/tmp/data of="$path" bs=$bytes oflag=direct status=none

# same INDEX FILE: what the device holds in its 64 KiB number INDEX.
same() {
    dd if="$path" of=/tmp/found bs=$bytes skip="$1" count=1 iflag=direct status=none
    cmp "$2" /tmp/found || fail "64 KiB number $1 are not $2"
}

nvme verify "$path" -s 0 -c $((blocks - 1))

# Two halves change places.
half=$((blocks / 2))
nvme copy "$path" -d $((4 * blocks)) -s $half,0 -b $((half - 1)),$((half - 1))
{
    tail -c $((bytes / 2)) /tmp/data
    head -c $((bytes / 2)) /tmp/data
} >/tmp/swapped
same 4 /tmp/swapped
if nvme copy "$path" -d $half -s 0 -b $half >/tmp/said 2>&1; then
    fail "a copy onto itself"
fi
grep -qi "overlap\|0x[46]*187" /tmp/said || fail "$(cat /tmp/said)"

nvme compare "$path" -s 0 -c 7 -z $((8 * BLOCK_SIZE)) -d /tmp/data
if nvme compare "$path" -s 0 -c 7 -z $((8 * BLOCK_SIZE)) -d /tmp/swapped >/tmp/said 2>&1; then
    fail "swapped halves compare equal"
fi

dd if=/dev/zero of=/tmp/zeroes bs=$bytes count=1 status=none
nvme write-zeroes "$path" -s 0 -c $((blocks - 1)) --deac
same 0 /tmp/zeroes
nvme dsm "$path" -d -s $((4 * blocks)) -b $blocks
same 4 /tmp/zeroes

# What failed is in the error log, the latest first; what moved is in SMART.
nvme error-log "/dev/$controller" -e 2 >/tmp/errors
cat /tmp/errors
grep -q "^error_count.*: 2" /tmp/errors || fail "two errors are not counted"
grep -q "^status_field.*: 0x[46]*187" /tmp/errors || fail "the copy is not in the error log"
nvme smart-log "/dev/$controller" >/tmp/smart
cat /tmp/smart
for field in "Data Units Read" "Data Units Written" host_read_commands num_err_log_entries; do
    grep -qi "^$field.*: *[1-9]" /tmp/smart || fail "$field is zero"
done

nvme get-feature "/dev/$controller" -f 0x16
nvme ns-rescan "/dev/$controller"
nvme reset "/dev/$controller"
is_live() {
    is "/sys/class/nvme/$controller/state" live
}
until_true 60 is_live
nvme verify "$path" -s 0 -c $((blocks - 1))
disconnect
