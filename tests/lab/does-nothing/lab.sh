#!/usr/bin/env bash
# The labs themselves: with a daemon that does nothing they have to fail.
#
# In `beside` zebra's own routes forward too, so a lab that only sends traffic would pass without
# us. Here a stand-in says that all is well and writes no route; the main lab must find it out, by
# the kernel's routes.
. "$(dirname "$0")/../lib.sh"

stand_in=$(mktemp)
trap 'rm -f "$stand_in"' EXIT
cat >"$stand_in" <<'EOF'
#!/bin/sh
case $1 in
run) exec sleep 600 ;;
*) echo '{"sources": [{"name": "fpm", "state": "synced"}],
         "kernel": {"wanted": 9, "installed": 9, "pending": 0, "failed": 0}}' ;;
esac
EOF
chmod +x "$stand_in"
# KEEP is for this lab, not for the one inside.
code=0
output=$(KEEP='' FRR_OFFLOAD=$stand_in bash "$LAB_SOURCE/bgp-unnumbered/lab.sh" 2>&1) || code=$?
case $code in
77) grep '^SKIP' <<<"$output" && exit 77 ;;
0) echo 'the lab passed with a daemon that does nothing' && exit 1 ;;
esac
grep -q 'FAIL.*ECMP route of ours' <<<"$output" ||
    { echo "$output" | head -n 30; echo 'the lab failed for another reason than the routes'; exit 1; }
ok 'a daemon that does nothing is found out'
