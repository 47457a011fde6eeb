# One life of a machine between two power cuts: holdfastd on a drive of its own, the kernel's
# initiator on loopback, ext4 and PostgreSQL on the volume.
#
#   FIRST=yes      everything is made; otherwise everything must be there
#   COMMITTED=n    row n was committed: it and all before it must be there
#   LIFE=n         the number of this life
#   END=cut|stop   work until the power is cut, or end in order
. ./lib.sh
ADDRESS=127.0.0.1 PORT=4420
NSID=1
user="setpriv --reuid 65534 --regid 65534 --clear-groups"

modprobe virtio_blk
modprobe ext4
mkdir -p /mnt/state /mnt/data /mnt/root
if [ "$PG_ROOT" = / ]; then
    programs=/$PG_PROGRAMS
else
    # A cache below somebody's home is for root only.
    mount --bind "$PG_ROOT" /mnt/root
    programs=/mnt/root/$PG_PROGRAMS
    export LD_LIBRARY_PATH=/mnt/root/usr/lib/x86_64-linux-gnu
fi
until_true 60 test -b /dev/vda2

# clean DEVICE: its journal is replayed, and after that nothing is wrong.
clean() {
    e2fsck -p "$1" || [ $? = 1 ] || fail "e2fsck -p $1"
    e2fsck -fn "$1" || fail "e2fsck -fn $1"
}

holdfast() {
    /lab/holdfast --server unix:/run/holdfast.sock --timeout 300 "$@"
}

# records VERB LIFE [OPTION..]: the records that a life wrote, through the page cache: an fsync sends
# many requests at once. The host keeps what is durable.
records() {
    verb=$1 life=$2
    shift 2
    /lab/hw-lab ledger "$verb" --path /mnt/data/records --state "/lab/records.$life" --seed "$life" \
        --slots 2048 --buffered "$@"
}

sql() {
    "$programs/psql" -XqAt -v ON_ERROR_STOP=1 -h /tmp -U postgres "$@"
}

[ "$FIRST" = no ] || mkfs.ext4 -qF /dev/vda1
clean /dev/vda1
mount /dev/vda1 /mnt/state
rm -f /mnt/state/holdfast/endpoints.json
cat >/run/holdfastd.toml <<EOF
state_dir = "/mnt/state/holdfast"
[memory]
buffers_per_core = "64MiB"
[nvme_tcp]
listen = ["$ADDRESS:$PORT"]
discovery = ["$ADDRESS:8009"]
[management]
socket = "/run/holdfast.sock"
EOF
/lab/holdfastd --config /run/holdfastd.toml >>/lab/holdfastd.log 2>&1 &
daemon=$!
listens() {
    kill -0 "$daemon" 2>/dev/null || fail "holdfastd ended"
    test -s /mnt/state/holdfast/endpoints.json
}
until_true 300 listens
if [ "$FIRST" = yes ]; then
    holdfast store init store --device /dev/vda2
    holdfast volume create pg --store store --size 144MiB --block-size 4096
    holdfast export add pg --host "$HOSTNQN"
fi
NQN=$(holdfast export list -o json | sed -n 's/.*"nqn": *"\([^"]*\)".*/\1/p')
QUEUES=1 connect
[ "$FIRST" = no ] || mkfs.ext4 -qF -E nodiscard "$path"
clean "$path"
mount "$path" /mnt/data

if [ "$FIRST" = yes ]; then
    if [ -f /lab/pg.tar ]; then
        tar -C /mnt/data --numeric-owner -xpf /lab/pg.tar
    else
        mkdir /mnt/data/pg
        chown 65534:65534 /mnt/data/pg
        $user "$programs/initdb" -D /mnt/data/pg -A trust -U postgres -k --wal-segsize=1 \
            --no-locale -E UTF8 --no-sync >/dev/null
    fi
    sync
fi
$user "$programs/postgres" -D /mnt/data/pg -k /tmp -c listen_addresses= -c shared_buffers=8MB \
    -c max_wal_size=8MB -c autovacuum=off -c jit=off 2>&1 &
server=$!
answers() {
    kill -0 "$server" 2>/dev/null || fail "PostgreSQL ended"
    sql -c 'SELECT 1' postgres >/dev/null 2>&1
}
until_true 400 answers
if [ "$FIRST" = yes ]; then
    sql postgres <<EOF
CREATE TABLE ledger (n bigint PRIMARY KEY, body text NOT NULL, hits int NOT NULL DEFAULT 0);
CREATE TABLE totals (rows bigint NOT NULL);
INSERT INTO totals VALUES (0);
CHECKPOINT;
EOF
fi

# Every page of the table and of its index is read; pages carry checksums.
last=$(sql postgres <<EOF
SELECT CASE WHEN count(*) = coalesce(max(n), 0) AND count(*) = (SELECT rows FROM totals)
    AND coalesce(bool_and(body = repeat(md5(n::text), 12)), true)
    THEN count(*)::text ELSE 'wrong: ' || count(*) || ' rows, the last is ' || max(n) END
FROM ledger;
EOF
)
case $last in *wrong*) fail "$last" ;; esac
[ "$last" -ge "$COMMITTED" ] || fail "$last rows, but row $COMMITTED was committed"
indexed=$(sql -c 'SET enable_seqscan = off' -c 'SELECT count(n) FROM ledger WHERE n > 0' postgres)
[ "$indexed" = "$last" ] || fail "the index has $indexed rows of $last"
for state in /lab/records.*; do
    [ -f "$state" ] || continue
    before=${state##*.}
    held=$(records verify "$before" 2>&1) || fail "$held"
    echo "records: $held"
    # In this order: without the state nobody asks for them.
    rm -f "$state" /mnt/data/records
done
echo "found $last rows"

if [ "$END" = stop ]; then
    kill -INT "$server"
    wait "$server" || true
    umount /mnt/data
    clean "$path"
    disconnect
    kill -TERM "$daemon"
    wait "$daemon" || fail "holdfastd ended with $?"
    exit 0
fi

note running "$last" rows
{
    records write "$LIFE" --records 1000000 --batch 64 || true
    echo "FAIL: the records ended"
    kill $$
} &
n=$last
while :; do
    n=$((n + 1))
    echo "BEGIN; INSERT INTO ledger VALUES ($n, repeat(md5('$n'), 12));"
    echo "UPDATE totals SET rows = rows + 1; COMMIT;"
    printf '%s\n' "\\echo row $n"
    case $n in
    *00) echo "CHECKPOINT;" ;;
    *0) echo "UPDATE ledger SET hits = hits + 1 WHERE n % 7 = $((n % 7));" ;;
    esac
done | stdbuf -oL "$programs/psql" -XqAt -v ON_ERROR_STOP=1 -h /tmp -U postgres postgres |
    while read -r word row; do
        note "$word" "$row"
    done
fail "the workload ended"
