#!/usr/bin/env bash
# Our daemon is killed (-9) and started again, several times, under traffic: no packet is lost.
#
# In `takeover` nothing but our routes forwards: they must stay while we are away, be adopted as they
# are when we come back (by our marks: the new daemon was told nothing by the old one), and not be
# taken away before zebra has repeated them. It is killed at different moments: in the middle of
# taking over, too.
#
#   KILLS=N   how often (default 3; 20 before a release)
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init restart-daemon
steady_r1
static_ways
# What the kernel has of ours; ids of next-hop objects too, since an adopted route keeps its.
fib() { ipr r1 -N -j route show proto 1 | jq -S 'sort_by(.dst)' && ipr r1 -N -j -6 route show proto 1 | jq -S 'sort_by(.dst)'; }
before=$(fib)
crossing_start

for ((kill = 1; kill <= ${KILLS:-3}; kill++)); do
    section "Killed, $kill"
    kill_hard r1/frr-offload
    check 'its routes are still there' test "$(fib)" = "$before"
    if ((kill % 3 == 2)); then
        # In the middle of coming back: as soon as it answers, with zebra not yet there again.
        offload_revive r1
        kill_hard r1/frr-offload
        ok 'killed once more while it was coming back'
    fi
    offload_revive r1
    wait_until 20 'it is in step again' steady
    check 'the kernel has the very same routes' test "$(fib)" = "$before"
done

section 'A prefix was withdrawn while the daemon was away'
frr_configure r2 'interface lan0' 'ip address 10.20.9.1/24'
wait_until 15 'a new prefix' ours r1 10.20.9.0/24 'eth0 eth1'
# zebra's replay leaves out such a table, whoever asks; it has the route all the same.
frr_configure r1 'ip route 198.51.1.0/24 10.10.1.77 table 1000'
in_table_1000() { [[ -n $(ipr r1 route show table 1000 proto 1) ]]; }
wait_until 15 'a route in a table of its own' in_table_1000
kill_hard r1/frr-offload
frr_configure r2 'interface lan0' 'no ip address 10.20.9.1/24'
gone_in_frr() { ! vtysh r1 'show ip route 10.20.9.0/24' | grep -q 'Routing entry'; }
wait_until 15 'FRR has withdrawn it' gone_in_frr
check 'the kernel still has it' ours r1 10.20.9.0/24 'eth0 eth1'
# stale_time ends it: what an earlier run has left is held so long.
offload_start r1 "$(cat "$LAB/r1/frr-offload.toml")"$'\nfpm.stale_time = "4s"'
wait_until 30 'the new daemon removes it' not_ours r1 10.20.9.0/24
wait_until 20 'and keeps the rest' steady
check 'also what zebra did not repeat' in_table_1000

section 'All in all'
not_one_lost 'not one packet was lost'
lab_passed
