# An idle connection is kept alive: three keep-alive periods pass and nothing is reconnected.
. ./lib.sh
connect --keep-alive-tmo=2
sleep 6
dd if="$path" of=/dev/null bs=4096 count=1 iflag=direct status=none
disconnect
