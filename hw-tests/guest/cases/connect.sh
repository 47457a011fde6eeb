# Connects and stays connected for the scripts that follow.
. ./lib.sh
find_device || connect
