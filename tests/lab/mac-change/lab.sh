#!/usr/bin/env bash
# The MAC of a peer changes: a port or a machine was replaced.
#
# First with the link-local address staying the same (r3 has fe80::3, set by hand): BGP does not
# notice, neighbour discovery does, and one write of our neighbour entry must follow. Then on r2,
# where the address is made from the MAC: new address, new session, new next hop.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init mac-change
fixed_link_local_on_r3() {
    ipr r3 link set eth0 addrgenmode none
    ipr r3 addr flush dev eth0
    ipr r3 addr add fe80::3/64 dev eth0
    # Tell the neighbours about a new MAC at once, as routers do.
    on r3 sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1
}
router r1 r2 r3
link r1 eth0 02:00:00:00:01:00 r2 eth0 02:00:00:00:02:00
link r1 eth1 02:00:00:00:01:01 r2 eth1 02:00:00:00:02:01
link r1 eth2 02:00:00:00:01:02 r3 eth0 02:00:00:00:03:00
fixed_link_local_on_r3
second_spine >"$LAB/r3.conf"
frr_start r1 "$FRR_CONF/daemons.beside" "$FRR_CONF/leaf.conf"
frr_start r2 "$FRR_CONF/daemons.beside" "$FRR_CONF/spine.conf"
frr_start r3 "$FRR_CONF/daemons.beside" "$LAB/r3.conf"
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1
wait_until 15 'route to the MAC 02:00:00:00:03:00' ours r1 10.30.1.0/24 eth2

section 'Same address, new MAC'
established() { vtysh r1 'show bgp neighbors eth2 json' | jq '.eth2.connectionsEstablished'; }
sessions=$(established)
ipr r3 link set eth0 address 02:00:00:00:03:99
wait_until 15 'our neighbour entry follows' ours r1 10.30.1.0/24 eth2
check 'it is the new one' test "$(mac r3 eth0)" = 02:00:00:00:03:99
check 'show routes says so' shows r1 10.30.1.0/24 '.nexthops[0].mac == "02:00:00:00:03:99"'
check 'traffic' reaches r1 10.30.1.1 10.10.1.1
check 'BGP did not notice' test "$(established)" = "$sessions"

section 'New MAC, new address'
ipr r2 link set eth1 down
ipr r2 link set eth1 address 02:00:00:00:02:99
ipr r2 link set eth1 up
wait_until 15 'the other path carries on' reaches r1 10.20.1.1 10.10.1.1
via_new() { preferred r1 2001:db8:20::/64 | grep -q fe80::ff:fe00:299; }
wait_until 60 'IPv6: the new address is there' via_new
wait_until 30 'IPv4: both links, to the right MACs' ours r1 10.20.1.0/24 'eth0 eth1'
check 'traffic' reaches r3 10.20.1.1 10.30.1.1

lab_passed
