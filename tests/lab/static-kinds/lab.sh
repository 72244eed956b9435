#!/usr/bin/env bash
# Routes that are not plain forwarding: blackhole, unreachable, a static route that resolves over a
# BGP one, a kind that changes in place, and a preferred source address.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init static-kinds
three_routers
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

section 'Kinds'
frr_configure r1 'ip route 198.51.100.0/24 blackhole' 'ip route 198.51.101.0/24 reject' \
    'ip route 198.51.102.0/24 10.30.1.1' \
    'ipv6 route 2001:db8:100::/48 blackhole' 'ipv6 route 2001:db8:101::/48 reject' \
    'ipv6 route 2001:db8:102::/48 fe80::ff:fe00:300 eth2'
wait_until 10 'IPv4 blackhole' type_is r1 198.51.100.0/24 blackhole
wait_until 10 'IPv4 reject' type_is r1 198.51.101.0/24 unreachable
wait_until 10 'static route over a BGP route' ours r1 198.51.102.0/24 eth2
wait_until 10 'IPv6 blackhole' type_is r1 2001:db8:100::/48 blackhole
wait_until 10 'IPv6 reject' type_is r1 2001:db8:101::/48 unreachable
wait_until 10 'IPv6 static route by link-local' ours r1 2001:db8:102::/48 eth2
check 'show routes says blackhole' shows r1 198.51.100.0/24 '.type == "blackhole" and .kernel == "installed"'
check 'show routes says static' shows r1 198.51.102.0/24 '.protocol == "static" and .type == "unicast"'

section 'A blackhole becomes a route, and goes'
frr_configure r1 'no ip route 198.51.100.0/24 blackhole' 'ip route 198.51.100.0/24 10.30.1.1'
wait_until 10 'a route now' ours r1 198.51.100.0/24 eth2
frr_configure r1 'no ip route 198.51.100.0/24 10.30.1.1' 'no ip route 198.51.101.0/24 reject' \
    'no ipv6 route 2001:db8:100::/48 blackhole'
wait_until 10 'IPv4 route is gone' not_ours r1 198.51.100.0/24
wait_until 10 'IPv4 reject is gone' not_ours r1 198.51.101.0/24
wait_until 10 'IPv6 blackhole is gone' not_ours r1 2001:db8:100::/48

section 'Preferred source'
source_is() { preferred r1 "$1" | jq -e --arg source "$2" '.protocol == "1" and .prefsrc == $source'; }
# FRR 10.3 re-sends the routes without the source after the route-map is set, until the next hop
# is made anew: hence the cleared session.
frr_configure r1 'route-map SOURCE permit 10' 'set src 10.0.0.1' 'exit' 'ip protocol bgp route-map SOURCE'
vtysh r1 'clear bgp *'
wait_until 40 'the source of BGP routes is the loopback address' source_is 10.30.1.0/24 10.0.0.1
wait_until 40 'all of BGP is back' ours r1 10.20.1.0/24 'eth0 eth1'

lab_passed
