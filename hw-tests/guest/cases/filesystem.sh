# A file system FS is made, filled, checked, and holds what was put into it.
. ./lib.sh
connect
where=/mnt/$FS
mkdir -p "$where"
case $FS in
ext4) mkfs.ext4 -q -F "$path" ;;
xfs) mkfs.xfs -q -f "$path" ;;
esac
mount -t "$FS" "$path" "$where"
dd if=/dev/urandom of=/tmp/random bs=1M count=8 status=none
cp /tmp/random "$where/random"
cp -r /lab/guest "$where/tree"
sync -f "$where/random"
umount "$where"
mount -t "$FS" "$path" "$where"
echo 3 >/proc/sys/vm/drop_caches
cmp /tmp/random "$where/random" || fail "a file changed"
diff -r /lab/guest "$where/tree" || fail "a tree changed"
rm "$where/random"
fstrim "$where"
umount "$where"
case $FS in
ext4) fsck.ext4 -fn "$path" ;;
xfs) xfs_repair -n "$path" ;;
esac >/tmp/check 2>&1 || {
    cat /tmp/check
    fail "$FS is not clean"
}
disconnect
