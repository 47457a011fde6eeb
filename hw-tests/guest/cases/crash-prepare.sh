# Makes the file system that lives through the kills.
. ./lib.sh
find_device || connect
mkfs.ext4 -q -F "$path"
mkdir -p /mnt/crash
