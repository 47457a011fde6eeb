# connect-all finds the subsystem by discovery and connects to it; nvme list shows it.
. ./lib.sh
nvme connect-all -t tcp -a "$ADDRESS" -s "$DISCOVERY_PORT" --hostnqn="$HOSTNQN" --hostid="$HOSTID"
until_true 120 find_device
listed=$(nvme list)
echo "$listed"
case $listed in *"$path "*) ;; *) fail "$path is not listed" ;; esac
listed=$(nvme list-subsys)
echo "$listed"
case $listed in *"NQN=$NQN"*) ;; *) fail "$NQN is not listed" ;; esac
dd if="$path" of=/dev/null bs=64k count=1 iflag=direct status=none
nvme disconnect-all
