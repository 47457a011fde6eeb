#!/bin/busybox sh
# The guest's first program. It mounts the host's root read-only over 9p with a tmpfs on top, so
# that every tool installed on the host is there, and hands over to agent.sh.
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

give_up() {
    echo "lab: init: $*"
    poweroff -f
}

# Where the host keeps this kernel's modules.
modules=$(sed -n "s/.*lab\.modules=\([^ ]*\).*/\1/p" /proc/cmdline)
[ -n "$modules" ] || give_up "no lab.modules"

while read -r module; do
    insmod "/lib/$module.ko" || give_up "cannot load $module"
done </lib/order

transport=version=9p2000.L,trans=virtio,msize=512000
mount -t tmpfs layers /layers
mkdir -p /layers/host /layers/upper /layers/work
mount -t 9p -o "ro,cache=loose,$transport" host /layers/host || give_up "no host share"
mount -t overlay -o lowerdir=/layers/host,upperdir=/layers/upper,workdir=/layers/work \
    overlay /root || give_up "no overlay"
mkdir -p /root/lab
mount -t 9p -o "cache=none,$transport" lab /root/lab || give_up "no lab share"

for directory in proc sys dev; do
    mount --move "/$directory" "/root/$directory"
done
release=$(uname -r)
mkdir -p "/root/lib/modules/$release"
mount --bind "/root$modules" "/root/lib/modules/$release" || give_up "no modules"

# From here on what the host keeps in these places is out of sight.
for directory in run tmp mnt dev/shm; do
    mkdir -p "/root/$directory"
    mount -t tmpfs tmpfs "/root/$directory"
done

exec switch_root /root /bin/sh /lab/guest/agent.sh
