# fsync and the flush command reach the target and come back.
. ./lib.sh
connect
dd if=/dev/urandom of="$path" bs=64k count=16 conv=fsync status=none
fio --name=sync --filename="$path" --ioengine=psync --direct=1 --rw=randwrite --bs=4k --size=1m \
    --fsync=1 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
nvme flush "$path"
disconnect
