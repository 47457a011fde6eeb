# The third block of the pattern has rotted: reading it fails, its neighbours are whole.
. ./lib.sh
find_device
read_block() {
    dd if="$path" of=/tmp/found bs=4096 skip=$((64 * 16 + $1)) count=1 iflag=direct status=none
}
# The first read also waits for the reconnect.
for block in 0 1 3 15; do
    read_block $block || fail "block $block cannot be read"
    dd if=/tmp/pattern of=/tmp/expected bs=4096 skip=$block count=1 status=none
    cmp /tmp/expected /tmp/found || fail "block $block changed"
done
for attempt in 1 2 3; do
    rm -f /tmp/found
    if read_block 2; then
        fail "attempt $attempt: a rotten block was returned"
    fi
    [ ! -s /tmp/found ] || fail "attempt $attempt: bytes came with the error"
done
disconnect
