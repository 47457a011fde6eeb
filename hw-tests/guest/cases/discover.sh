# The discovery log, asked for at port AT, names the subsystem and where to find it.
. ./lib.sh
log=$(nvme discover -t tcp -a "$ADDRESS" -s "$AT" --hostnqn="$HOSTNQN" --hostid="$HOSTID")
echo "$log"
says() {
    echo "$log" | grep -q "^$1: *$2\$" || fail "no entry has $1 $2"
}
says trtype tcp
says subnqn "$NQN"
says traddr "$ADDRESS"
says trsvcid "$PORT"
