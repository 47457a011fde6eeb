# Verified writes with fsync, long enough for the daemon to be restarted meanwhile.
. ./lib.sh
find_device
note started
fio --name=load --filename="$path" --offset=64m --ioengine=libaio --direct=1 --iodepth=4 \
    --rw=randwrite --bs=4k --size=4m --fsync=32 --verify=crc32c --verify_fatal=1 --minimal \
    >/tmp/fio || {
    cat /tmp/fio
    fail fio
}
disconnect
