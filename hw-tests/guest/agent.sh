# Process 1 of the guest after init.sh: takes orders from the lab on the host, one per line, over a
# virtio-serial port. The other half is src/guest.rs.
#
#   run ID SCRIPT NAME=VALUE..   starts cases/SCRIPT in the background
#   kill ID                      ends that script and all that it started
#   mark TEXT                    writes a line into the kernel log
#   off                          powers the guest off
#
# and answers:
#
#   ready UPTIME CLOCK           once, after boot: seconds, and the kernel's clock source
#   note ID WORD..               whatever a script has to say while it runs (lib.sh: note)
#   end ID STATUS                the script is over; its output is in /lab/log/ID
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C
cd /lab/guest || exit 1

. ./network.sh
modprobe nvme-tcp

# Every kernel message, from the first one on, as the host reads it while the guest runs.
cat /dev/kmsg >/lab/kmsg &

port=$(echo /dev/virtio-ports/* | cut -d' ' -f1)
[ -e "$port" ] || port=$(echo /dev/vport*p* | cut -d' ' -f1)
exec 3<>"$port"
mkdir -p /run/jobs

run() {
    id=$1 script=$2
    shift 2
    (
        export LAB_ID="$id" "$@"
        setsid sh -eu "cases/$script" >"/lab/log/$id" 2>&1 </dev/null &
        echo $! >"/run/jobs/$id"
        wait $!
        echo "end $id $?" >&3
    ) 2>/dev/null &
}

read -r up _ </proc/uptime
read -r clock </sys/devices/system/clocksource/clocksource0/current_clocksource
echo "ready $up $clock" >&3
while read -r verb id rest <&3; do
    case $verb in
    run)
        # Names and values hold no blanks: the host checks.
        # shellcheck disable=SC2086
        run "$id" $rest
        ;;
    kill)
        # Where everything hangs, for the report.
        echo w >/proc/sysrq-trigger
        echo l >/proc/sysrq-trigger
        read -r group <"/run/jobs/$id"
        kill -9 "-$group"
        ;;
    mark) echo "lab: mark $id" >/dev/kmsg ;;
    off) break ;;
    *) echo "lab: agent: what is $verb?" >/dev/kmsg ;;
    esac
done
exec busybox poweroff -f
