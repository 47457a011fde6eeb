# blkdiscard and write-zeroes leave zeroes where they were asked to, and nothing else changed.
. ./lib.sh
connect
mebi=1048576
dd if=/dev/urandom of=/tmp/expected bs=1M count=8 status=none
dd if=/tmp/expected of="$path" bs=1M oflag=direct status=none

# same: what the device holds is what /tmp/expected holds.
same() {
    dd if="$path" of=/tmp/found bs=1M count=8 iflag=direct status=none
    cmp /tmp/expected /tmp/found || fail "$1"
}
# zero OFFSET LENGTH: so shall it be.
zero() {
    dd if=/dev/zero of=/tmp/expected bs=4096 seek=$(($1 / 4096)) count=$(($2 / 4096)) \
        conv=notrunc status=none
}
same "what was written is not what is read"

blkdiscard -o $mebi -l $mebi "$path"
zero $mebi $mebi
same "after a discard"

blkdiscard -z -o $((3 * mebi)) -l $((mebi + 8192)) "$path"
zero $((3 * mebi)) $((mebi + 8192))
same "after write-zeroes"

blkdiscard -o $((6 * mebi + 4096)) -l 4096 "$path"
zero $((6 * mebi + 4096)) 4096
same "after a discard of one block"

dd if=/dev/urandom of=/tmp/new bs=4096 count=8 status=none
dd if=/tmp/new of="$path" bs=4096 seek=256 oflag=direct status=none
dd if=/tmp/new of=/tmp/expected bs=4096 seek=256 conv=notrunc status=none
same "after a write into what was discarded"
disconnect
