#!/usr/bin/env bash
# Set-up `takeover`: zebra keeps its routes in table 5000 (-R), the main table is ours alone.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init takeover
[[ $(frr_major) -ge 10 ]] || skip "FRR $FRR_VERSION has no -R; takeover needs 10 or later"
three_routers "$FRR_CONF/daemons.takeover"
offload_start r1 'setup = "takeover"'
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

wait_until 15 'two links: ECMP route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 15 'one link: route of ours' ours r1 10.30.1.0/24 eth2
wait_until 15 'IPv6 route' ours r1 2001:db8:20::/64 'eth0 eth1'
nothing_of_zebra() { [[ -z $(ipr r1 route show table main proto bgp)$(ipr r1 -6 route show table main proto bgp) ]]; }
check 'zebra writes nothing into the main table' nothing_of_zebra
check 'traffic' reaches r1 10.20.1.1 10.10.1.1
check 'through r1, from r3 to r2' reaches r3 10.20.1.1 10.30.1.1
frr_configure r2 'interface lan0' 'ip address 10.20.9.1/24'
wait_until 15 'new prefix' ours r1 10.20.9.0/24 'eth0 eth1'
frr_configure r2 'interface lan0' 'no ip address 10.20.9.1/24'
wait_until 15 'withdrawn prefix is gone' not_ours r1 10.20.9.0/24

lab_passed
