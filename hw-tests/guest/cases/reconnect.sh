# Connections come and go, controllers are reset, and the data stays.
. ./lib.sh
connect
dd if=/dev/urandom of=/tmp/expected bs=64k count=4 status=none
dd if=/tmp/expected of="$path" bs=64k oflag=direct status=none
for round in 1 2 3; do
    disconnect
    connect
    dd if="$path" of=/tmp/found bs=64k count=4 iflag=direct status=none
    cmp /tmp/expected /tmp/found || fail "round $round"
done
find_controller
nvme reset "/dev/$controller"
dd if="$path" of=/tmp/found bs=64k count=4 iflag=direct status=none
cmp /tmp/expected /tmp/found || fail "after a reset"
disconnect
