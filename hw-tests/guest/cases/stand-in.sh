# Serves a volume with the kernel's own target on the guest's loopback: a 512-byte one from memory,
# a 4096-byte one from a file. For testing the lab itself.
. ./lib.sh
modprobe nvmet-tcp
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
nvmet=/sys/kernel/config/nvmet

if [ "$BLOCK_SIZE" = 512 ]; then
    modprobe null_blk nr_devices=0
    null=/sys/kernel/config/nullb/nullb0
    mkdir "$null"
    echo 512 >"$null/blocksize"
    echo $((BYTES >> 20)) >"$null/size"
    echo 1 >"$null/memory_backed"
    echo 1 >"$null/discard"
    echo 1 >"$null/power"
    backing=/dev/nullb0 buffered=0
else
    backing=/tmp/stand-in buffered=1
    truncate -s "$BYTES" "$backing"
fi

if [ ! -e "$nvmet/ports/1" ]; then
    mkdir "$nvmet/ports/1"
    echo tcp >"$nvmet/ports/1/addr_trtype"
    echo ipv4 >"$nvmet/ports/1/addr_adrfam"
    echo "$ADDRESS" >"$nvmet/ports/1/addr_traddr"
    echo "$PORT" >"$nvmet/ports/1/addr_trsvcid"
fi

subsystem=$nvmet/subsystems/$NQN
mkdir "$subsystem"
echo 1 >"$subsystem/attr_allow_any_host"
mkdir "$subsystem/namespaces/1"
echo "$buffered" >"$subsystem/namespaces/1/buffered_io"
echo "$backing" >"$subsystem/namespaces/1/device_path"
echo 1 >"$subsystem/namespaces/1/enable"
ln -s "$subsystem" "$nvmet/ports/1/subsystems/"
