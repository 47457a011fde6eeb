# One round: fio with fsync on a file system and a ledger on a raw device, while the host kills the
# daemon. Then every synced byte is read back past the cache and the file system is checked.
. ./lib.sh
find_device
files=$path
find_device "$RAW_NQN" "$RAW_NSID"
raw=$path
ledger() {
    verb=$1
    shift
    /lab/hw-lab ledger "$verb" --path "$raw" --state /lab/ledger --slots 2048 "$@"
}
mount "$files" /mnt/crash

fio --name=files --directory=/mnt/crash --filename_format="round.$SEED.\$jobnum" --numjobs=2 \
    --ioengine=libaio --iodepth=4 --direct=1 --rw=randwrite --bs=4k --size=512k --fsync=8 \
    --verify=crc32c --verify_fatal=1 --randseed="$SEED" --minimal >/tmp/fio 2>&1 &
fio=$!
fio_writes() {
    [ -s "/mnt/crash/round.$SEED.0" ]
}
until_true 120 fio_writes
note started
ledger write --records "$RECORDS" --batch 4
wait "$fio" || {
    cat /tmp/fio
    fail fio
}
ledger verify
umount /mnt/crash
fsck.ext4 -fn "$files" >/tmp/fsck 2>&1 || {
    cat /tmp/fsck
    fail "fsck"
}
