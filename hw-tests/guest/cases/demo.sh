# The line that `holdfastd demo` prints, typed as it stands, gives a disk.
. ./lib.sh
cat /lab/connect-line
sh -eu /lab/connect-line
until_true 120 find_device
mkfs.ext4 -q -F "$path"
mkdir -p /mnt/demo
mount "$path" /mnt/demo
echo hello >/mnt/demo/hello
umount /mnt/demo
mount "$path" /mnt/demo
is /mnt/demo/hello hello || fail "the file says $line"
umount /mnt/demo
disconnect
