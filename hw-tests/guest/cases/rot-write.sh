# Writes /lab/pattern where the host will find it on the backing file, and much around it.
. ./lib.sh
connect
dd if=/lab/pattern of=/tmp/pattern status=none
dd if=/dev/urandom of="$path" bs=1M count=2 oflag=direct status=none
dd if=/tmp/pattern of="$path" bs=64k seek=64 oflag=direct status=none
dd if=/dev/urandom of="$path" bs=1M seek=8 count=2 oflag=direct status=none
nvme flush "$path"
