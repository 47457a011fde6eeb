# What the controller and the namespace say of themselves is whole and makes sense.
. ./lib.sh
connect
find_controller
# read_fields FILE: sets `field_NAME` for every "NAME : VALUE" line.
read_fields() {
    while IFS=: read -r name value; do
        name=${name%% *} value=${value# }
        case $name in '' | *[!a-z0-9]*) continue ;; esac
        eval "field_$name=\$value"
    done <"$1"
    cat "$1"
}
nvme ns-descs "$path" >/tmp/descriptors
read_fields /tmp/descriptors
nvme id-ns "$path" >/tmp/ns
read_fields /tmp/ns
echo "IDENTITY nguid=$field_nguid eui64=$field_eui64 uuid=${field_uuid:-none}"
[ "$ROUND" = 1 ] || {
    disconnect
    exit 0
}

nvme id-ctrl "/dev/$controller" >/tmp/ctrl
read_fields /tmp/ctrl
[ "$field_subnqn" = "$NQN" ] || fail "subnqn is $field_subnqn"
for name in sn mn fr cntlid mdts kas sqes cqes ioccsz iorcsz; do
    eval "value=\$field_$name"
    [ -n "$value" ] || fail "$name is empty"
done

lbads=$(sed -n 's/.*lbads:\([0-9]*\).*in use.*/\1/p' /tmp/ns)
[ $((1 << lbads)) = "$BLOCK_SIZE" ] || fail "block size 1 << $lbads"
[ $((field_nsze << lbads)) = "$BYTES" ] || fail "$field_nsze blocks are not $BYTES bytes"
queue=/sys/block/${path##*/}/queue
is "$queue/logical_block_size" "$BLOCK_SIZE" || fail "the kernel sees blocks of $line"
is "$queue/../size" $((BYTES / 512)) || fail "the kernel sees $line sectors"

nvme list-ns "/dev/$controller"
nvme smart-log "/dev/$controller"
nvme get-feature "/dev/$controller" -f 7
disconnect
