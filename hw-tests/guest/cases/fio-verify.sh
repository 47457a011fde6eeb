# Writes and reads back with checksums: sizes from one block to 1 MiB, QUEUES queues, DIGESTS.
. ./lib.sh
options=
[ "$DIGESTS" = off ] || options="--hdr-digest --data-digest"
# shellcheck disable=SC2086
connect $options
find_controller
is "/sys/class/nvme/$controller/queue_count" $((QUEUES + 1)) ||
    fail "$line queues with the admin queue"

read -r block_size <"/sys/block/${path##*/}/queue/logical_block_size"
jobs= offset=0
worker=0
while [ "$worker" -lt "$QUEUES" ]; do
    worker=$((worker + 1))
    # bytes per I/O, bytes in all, depth
    for shape in 512:192k:8 4096:768k:16 20480:640k:8 65536:1m:8 1048576:2m:4; do
        size=${shape%%:*} rest=${shape#*:}
        [ $((size % block_size)) = 0 ] || continue
        jobs="$jobs --name=$size.$worker --bs=$size --size=${rest%:*} --iodepth=${rest#*:}"
        jobs="$jobs --offset=$offset"
        offset=$((offset + (4 << 20)))
    done
done
# shellcheck disable=SC2086
fio --filename="$path" --thread --ioengine=libaio --direct=1 --rw=randwrite --verify=crc32c \
    --verify_fatal=1 --do_verify=1 --minimal $jobs >/tmp/fio || {
    cat /tmp/fio
    fail fio
}
disconnect
