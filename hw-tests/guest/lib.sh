# What the cases share. They run under `sh -eu` in /lab/guest, so the first failing command ends a
# case; `fail` says why. Starting a program takes 0.1 to 0.4 s under emulation: prefer builtins.

fail() {
    echo "FAIL: $*"
    exit 1
}

# Tells the host something while the case still runs.
note() {
    echo "note $LAB_ID $*" >&3
}

# seconds_up: sets `up` to the guest's uptime in whole seconds.
seconds_up() {
    IFS=. read -r up _ </proc/uptime
}

# until_true SECONDS COMMAND..: polls; fails the case when the time is over.
until_true() {
    seconds_up
    deadline=$((up + $1))
    shift
    until "$@"; do
        seconds_up
        [ "$up" -lt "$deadline" ] || fail "not in time: $*"
        sleep 0.1
    done
}

# is FILE TEXT: whether the first line of a file is this.
is() {
    line=
    { read -r line <"$1"; } 2>/dev/null || true
    [ "$line" = "$2" ]
}

# find_device [NQN NSID]: sets `path` to the block device (/dev/nvme0n1). A device that has several
# paths (nvme0c1n1) is not one of them.
find_device() {
    for block in /sys/block/nvme*n*; do
        case $block in *nvme*c*) continue ;; esac
        if is "$block/device/subsysnqn" "${1:-$NQN}" && is "$block/nsid" "${2:-$NSID}"; then
            path=/dev/${block##*/}
            return 0
        fi
    done
    return 1
}

# find_controller: sets `controller` (nvme0) to the one that is connected to NQN.
find_controller() {
    for candidate in /sys/class/nvme/nvme*; do
        if is "$candidate/subsysnqn" "$NQN"; then
            controller=${candidate##*/}
            return 0
        fi
    done
    return 1
}

# connect [OPTION..]: connects to NQN at ADDRESS:PORT and sets `path`.
connect() {
    nvme connect -t tcp -a "$ADDRESS" -s "$PORT" -n "$NQN" --hostnqn="$HOSTNQN" \
        --hostid="$HOSTID" --nr-io-queues="${QUEUES:-2}" \
        --reconnect-delay=1 --ctrl-loss-tmo=60 --keep-alive-tmo=15 "$@"
    until_true 120 find_device
}

disconnect() {
    nvme disconnect -n "$NQN"
}
