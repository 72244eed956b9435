#!/usr/bin/env bash
# Set-up `observe`: zebra owns the FIB, we only follow. We write no route, no next-hop object and no
# neighbour, whatever happens; what zebra does is none of our business, and goes on without us.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init observe
three_routers "$FRR_CONF/daemons.observe" "$FRR_CONF/leaf.conf"
# Everything that is written into r1's kernel from now on, with its author.
spawn r1/monitor / ip -N monitor route nexthop neigh
offload_start r1 'setup = "observe"'
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

# Protocol 1 is how our hand shows. (The monitor has seen what came and went meanwhile.)
nothing_of_ours() {
    local found
    found=$(ipr r1 -N route show table all proto 1; ipr r1 -N -6 route show table all proto 1
        ipr r1 -N nexthop show proto 1; ipr r1 -N neigh show | grep 'proto 1$'
        grep -E 'proto 1( |$)' "$LAB/r1/log/monitor") || true
    [[ -z $found ]] || { echo "$found"; return 1; }
}
followed() { shows r1 10.20.1.0/24 '.protocol == "bgp" and .kernel == "not-wanted" and ([.nexthops[].dev] | sort) == ["eth0", "eth1"]'; }
wait_until 10 'show routes: followed, not written' followed
check 'nothing of ours in the kernel' nothing_of_ours
check 'traffic, by the routes of zebra' reaches r3 10.20.1.1 10.30.1.1

section 'Changes'
frr_configure r2 'interface lan0' 'ip address 10.20.9.1/24'
wait_until 15 'a new prefix is followed' shows r1 10.20.9.0/24 '.kernel == "not-wanted"'
ipr r1 link set eth2 down
ipr r1 link set eth2 up
wait_until 60 'BGP is back after a link flap' bgp_converged
kill_hard r1/frr-offload
offload_revive r1
wait_until 20 'the daemon is in step again after kill -9' synced r1
wait_until 10 'and follows' followed
check 'the monitor was there all the time' alive r1/monitor
check 'nothing of ours in the kernel, ever' nothing_of_ours
offload_stop r1
check 'nor after its end' nothing_of_ours

lab_passed
