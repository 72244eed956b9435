#!/usr/bin/env bash
# zebra is killed, and FRR as a whole restarted, under traffic: no packet is lost.
#
# zebra alone is no use: bgpd does not tell a new zebra its routes again (10.3 doesn't even find it),
# so watchfrr, as on every Debian, ends the other daemons and starts all of them.
#
# A new zebra (it has another nlmsg_pid) replays what it has, and BGP is not among it for seconds: what
# it does not repeat is kept, stale, for `stale_time`. On a clean end zebra takes its 169.254.0.1
# neighbours away, which some of our routes share: ours comes at once. Return routes are static on
# both sides, so that only what r1 does counts.
#
#   ZEBRA_KILLS=N    kill -9 of zebra (default 2; 10 before a release)
#   FRR_RESTARTS=N   clean restarts of all of FRR (default 1; 3 before a release)
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init restart-zebra
steady_r1
static_ways
# zebras_neighbours COUNT: so many entries of 169.254.0.1 are zebra's.
zebras_neighbours() { [[ $(ipr r1 neigh show 169.254.0.1 | grep -c 'proto zebra') == "$1" ]]; }
wait_until 20 'zebra has its 169.254.0.1 on the three links' zebras_neighbours 3
crossing_start
back() { bgp_converged && steady; }

watchfrr_start r1
for ((kill = 1; kill <= ${ZEBRA_KILLS:-2}; kill++)); do
    section "zebra is killed, $kill"
    old=${PID[r1/zebra]}
    kill_hard r1/zebra
    wait_until 10 'the daemon has noticed' not synced r1
    check 'our routes are there' ours r1 10.20.1.0/24 'eth0 eth1'
    wait_until 30 'watchfrr has started it again' frr_adopt r1 zebra "$old"
    wait_until 90 'BGP is back, and nothing is stale any more' back
done
watchfrr_stop r1

for ((restart = 1; restart <= ${FRR_RESTARTS:-1}; restart++)); do
    section "FRR ends and starts, $restart"
    frr_stop r1
    check 'zebra has taken its 169.254.0.1 away' zebras_neighbours 0
    check 'our routes lead to neighbours all the same' ours r1 10.20.1.0/24 'eth0 eth1'
    wait_until 10 'the daemon has noticed' not synced r1
    check 'our routes are there' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
    frr_start r1 "$FRR_CONF/daemons.$SETUP" "$FRR_CONF/leaf.conf"
    wait_until 60 'BGP is back, and nothing is stale any more' back
done

section 'All in all'
not_one_lost 'not one packet was lost'
lab_passed
