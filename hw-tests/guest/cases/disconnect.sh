. ./lib.sh
disconnect
