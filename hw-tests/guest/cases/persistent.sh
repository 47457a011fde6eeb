# A persistent discovery connection hears of an export when this host may use it, and not before.
. ./lib.sh
udevadm monitor --kernel --property >/tmp/uevents &
monitor=$!
nvme discover -p -t tcp -a "$ADDRESS" -s "$DISCOVERY_PORT" --hostnqn="$HOSTNQN" \
    --hostid="$HOSTID" --keep-alive-tmo=15 >/tmp/log
before=$(grep -c '^subnqn:' /tmp/log)
heard() {
    grep -q '^NVME_AEN=0x70f002' /tmp/uevents
}
note listening
# What somebody else may use is known to the target by now: it is told before the command returns.
sleep 2
if heard; then fail "told of what this host does not see"; fi
note quiet
until_true 60 heard
kill "$monitor"
nvme discover -t tcp -a "$ADDRESS" -s "$DISCOVERY_PORT" --hostnqn="$HOSTNQN" \
    --hostid="$HOSTID" >/tmp/log
[ "$(grep -c '^subnqn:' /tmp/log)" = $((before + 1)) ] || fail "$(cat /tmp/log)"
nvme disconnect-all
