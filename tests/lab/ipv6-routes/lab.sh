#!/usr/bin/env bash
# IPv6 routes with link-local next hops, beside the IPv4 ones.
#
# FRR hands out one next-hop group to both families; the kernel wants objects of its own for each,
# and an IPv4 route must not lose its path because an IPv6 one changed, nor the other way round.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init ipv6-routes
three_routers
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

section 'Routes'
wait_until 10 'two links: ECMP route of ours' ours r1 2001:db8:20::/64 'eth0 eth1'
wait_until 10 'one link: route of ours' ours r1 2001:db8:30::/64 eth2
wait_until 10 'a host route' ours r1 2001:db8::3/128 eth2
wait_until 10 'default route over all three' ours r1 ::/0 'eth0 eth1 eth2'
check 'connected networks stay with the kernel' not_ours r1 2001:db8:10::/64
check 'link-local networks too' not_ours r1 fe80::/64
check 'show routes' shows r1 2001:db8:20::/64 \
    '.protocol == "bgp" and .kernel == "installed" and ([.nexthops[].dev] | sort) == ["eth0", "eth1"]'
check 'from r1 to the network of r2' reaches r1 2001:db8:20::1 2001:db8:10::1
check 'through r1, from r3 to r2' reaches r3 2001:db8:20::1 2001:db8:30::1

section 'An IPv6 prefix comes and goes'
frr_configure r2 'interface lan0' 'ipv6 address 2001:db8:29::1/64'
wait_until 15 'new prefix' ours r1 2001:db8:29::/64 'eth0 eth1'
frr_configure r2 'interface lan0' 'no ipv6 address 2001:db8:29::1/64'
wait_until 15 'withdrawn prefix is gone' not_ours r1 2001:db8:29::/64
check 'IPv6 otherwise untouched' ours r1 2001:db8:20::/64 'eth0 eth1'
check 'IPv4 untouched' ours r1 10.20.1.0/24 'eth0 eth1'

section 'A cable is pulled'
ipr r2 link set eth0 down
wait_until 10 'IPv6: the other path carries on' ours r1 2001:db8:20::/64 eth1
wait_until 10 'IPv4 too' ours r1 10.20.1.0/24 eth1
check 'through r1, from r3 to r2' reaches r3 2001:db8:20::1 2001:db8:30::1
ipr r2 link set eth0 up
wait_until 40 'the cable is back: IPv6 over both' ours r1 2001:db8:20::/64 'eth0 eth1'
wait_until 10 'IPv4 too' ours r1 10.20.1.0/24 'eth0 eth1'

lab_passed
