# The kernel sees BYTES without a reconnect, and the new end of the device works.
. ./lib.sh
find_device
has_size() {
    is "/sys/block/${path##*/}/size" $((BYTES / 512))
}
until_true 120 has_size
dd if=/dev/urandom of=/tmp/block bs=4096 count=1 status=none
dd if=/tmp/block of="$path" bs=4096 seek=$((BYTES / 4096 - 1)) oflag=direct status=none
dd if="$path" of=/tmp/found bs=4096 skip=$((BYTES / 4096 - 1)) count=1 iflag=direct status=none
cmp /tmp/block /tmp/found || fail "the last block"
