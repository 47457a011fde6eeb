# Namespace 2 comes, grows, goes and comes again while fio writes to namespace 1, on one connection.
. ./lib.sh
connect
find_controller
read -r before <"/sys/class/nvme/$controller/cntlid"
fio --name=load --filename="$path" --thread --ioengine=libaio --direct=1 --rw=randrw --bs=4k \
    --size=4m --iodepth=4 --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based \
    --runtime=600 --minimal >/tmp/fio &
fio=$!
there() {
    find_device "$NQN" 2
}
gone() {
    ! there
}
has_size() {
    is "/sys/block/${path##*/}/size" $((BYTES / 512))
}
# fio takes its time to start.
load=${path##*/}
written() {
    read -r _ _ _ _ writes _ <"/sys/block/$load/stat"
    [ "$writes" -gt 0 ]
}
until_true 60 written
note running
until_true 120 there
dd if=/dev/urandom of=/tmp/block bs=4096 count=1 status=none
dd if=/tmp/block of="$path" bs=4096 oflag=direct status=none
note came
until_true 120 has_size
note grew
until_true 120 gone
note detached
until_true 120 there
dd if="$path" of=/tmp/found bs=4096 count=1 iflag=direct status=none
cmp /tmp/block /tmp/found || fail "another namespace came back"
note attached
until_true 120 gone
is "/sys/class/nvme/$controller/cntlid" "$before" || fail "it was connected again"
kill "$fio"
wait "$fio" || true
# Its summary has the first error of the job in the fifth field.
grep '^3;' /tmp/fio >/tmp/summary
IFS=';' read -r _ _ _ _ error _ </tmp/summary
[ "$error" = 0 ] || fail "fio: $(cat /tmp/fio)"
find_device
disconnect
