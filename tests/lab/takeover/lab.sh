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

check 'doctor finds nothing' finds_nothing r1

section 'The daemon and zebra disagree about the table'
offload_stop r1
offload_start r1
wait_until 20 'the replay is over' synced r1
wait_until 10 'set-up beside, and zebra has -R' finds r1 zebra-table-unmapped 'table 5000 (-R)'
offload_stop r1
# zebra_options, as the fix changes them; the labs have no systemd.
offload_start r1 'setup = "takeover"'
wait_until 20 'the replay is over' synced r1
wait_until 20 'mended: setup = "takeover"' finds_nothing r1
frr_stop r1
sed -i 's/ -R 5000//' "$LAB/r1/etc/daemons"
cp "$LAB/r1/etc/daemons" "$LAB/daemons"
frr_start r1 "$LAB/daemons" "$FRR_CONF/leaf.conf"
wait_until 60 'set-up takeover, and zebra has no -R' finds r1 zebra-table-missing 'without -R 5000'
mends_daemons r1 zebra-table-missing "$FRR_CONF/leaf.conf"
wait_until 60 'the routes are ours' ours r1 10.20.1.0/24 'eth0 eth1'
frr_stop r1
fix=$(fix_of r1 zebra-not-connected) || fix=
check 'without FRR doctor says to start it' test "$fix" = 'systemctl start frr'

lab_passed
