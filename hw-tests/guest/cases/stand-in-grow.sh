# Grows the stand-in's file to BYTES.
. ./lib.sh
truncate -s "$BYTES" /tmp/stand-in
echo 1 >"/sys/kernel/config/nvmet/subsystems/$NQN/namespaces/1/revalidate_size"
