#!/usr/bin/env bash
# The older FPM module of zebra (-M zebra_fpm:netlink), which some installations still run.
#
# It loses the IPv6 next hop of every IPv4 route: only 169.254.0.1 and the interface arrive. With
# one router on the link, neighbour discovery says who that is.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init old-module
sed 's/^fpm address.*/fpm connection ip 127.0.0.1 port 2620/' "$FRR_CONF/leaf.conf" >"$LAB/leaf.conf"
three_routers "$FRR_CONF/daemons.old-module" "$LAB/leaf.conf"
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

wait_until 15 'two links: ECMP route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 15 'one link: route of ours' ours r1 10.30.1.0/24 eth2
wait_until 15 'IPv6 route' ours r1 2001:db8:20::/64 'eth0 eth1'
check 'equal weights' test "$(weights r1 10.20.1.0/24)" = 'eth0=1 eth1=1'
check 'from r1 to the network of r2' reaches r1 10.20.1.1 10.10.1.1
check 'through r1, from r3 to r2' reaches r3 10.20.1.1 10.30.1.1

section 'A prefix comes and goes'
frr_configure r2 'interface lan0' 'ip address 10.20.9.1/24'
wait_until 15 'new prefix' ours r1 10.20.9.0/24 'eth0 eth1'
frr_configure r2 'interface lan0' 'no ip address 10.20.9.1/24'
wait_until 15 'withdrawn prefix is gone' not_ours r1 10.20.9.0/24

section 'A cable is pulled'
ipr r2 link set eth1 down
wait_until 15 'the other path carries on' ours r1 10.20.1.0/24 eth0
check 'traffic' reaches r3 10.20.1.1 10.30.1.1
ipr r2 link set eth1 up
wait_until 40 'the cable is back: both paths again' ours r1 10.20.1.0/24 'eth0 eth1'

section 'What doctor says'
check 'it knows the module' finds r1 old-fpm-module 'older module'
mends_daemons r1 old-fpm-module "$FRR_CONF/leaf.conf"
wait_until 60 'all is well with the new one' finds_nothing r1

lab_passed
