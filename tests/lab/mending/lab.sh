#!/usr/bin/env bash
# Somebody else deletes or changes what we wrote, or pulls an interface from under it: it is mended,
# and each act is counted. Objects and neighbours at once (the kernel tells), routes and sysctls by
# the audit, which runs every two seconds here. A foreign route in our place is not overwritten.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init mending
OFFLOAD_CONF=$'[kernel]\naudit = "2s"\nmultipath_hash = "l4"' steady_r1 beside
id_of() { preferred r1 "$1" | jq -r '.nhid'; }
# What the kernel's FIB gives for packets is what counts; steady looks at all of it.
mended() { wait_until "$1" "$2" steady; }

section 'Routes'
ipr r1 route del 10.20.1.0/24 metric 10
mended 10 'an IPv4 route was deleted'
ipr r1 -6 route del 2001:db8:30::/64 metric 10
mended 10 'an IPv6 route was deleted'
ipr r1 route replace 10.30.1.0/24 via 169.254.0.1 dev eth0 onlink proto 1 metric 10
mended 10 'a route was led astray, with our mark'
for prefix in $(ipr r1 -j route show proto 1 | jq -r '.[].dst'); do ipr r1 route del "$prefix" metric 10; done
mended 10 'all IPv4 routes were deleted'
# 196 is FRR's static: zebra does not import that, as it would others.
ipr r1 route replace blackhole 10.30.1.0/24 proto 196 metric 10
wait_until 10 'a foreign route has taken the place of ours: show routes says so' \
    shows r1 10.30.1.0/24 '.kernel != "installed" and .reason == "foreign-route"'
check 'and it is left alone' eval '[[ $(ipr r1 -N route show exact 10.30.1.0/24 metric 10) == *"10.30.1.0/24 proto 196 "* ]]'
ipr r1 route del blackhole 10.30.1.0/24 metric 10
mended 10 'it went: ours is back'

section 'Next-hop objects'
ipr r1 nexthop del id "$(id_of 10.30.1.0/24)"
mended 3 'the object of a route was deleted, and by the kernel the route with it'
ipr r1 nexthop del id "$(id_of 10.20.1.0/24)"
mended 3 'a group was deleted'
ipr r1 nexthop replace id "$(id_of 10.30.1.0/24)" via 169.254.0.1 dev eth0 onlink proto 1
mended 10 'an object was led astray'
ipr r1 nexthop flush proto 1
mended 5 'all objects were flushed'

section 'Neighbours'
entry() { ipr r1 neigh show "$(hops "$(preferred r1 10.30.1.0/24)" | cut -d' ' -f2)" dev eth2; }
address=$(entry | cut -d' ' -f1)
ipr r1 neigh del "$address" dev eth2
mended 3 'a neighbour was deleted'
ipr r1 neigh replace "$address" dev eth2 lladdr 02:00:00:00:66:66 nud permanent
mended 10 'a neighbour got another MAC'
ipr r1 neigh flush dev eth0 nud permanent
mended 3 'the permanent neighbours of a link were flushed'

section 'A sysctl'
policy() { [[ $(on r1 sysctl -n net.ipv4.fib_multipath_hash_policy net.ipv6.fib_multipath_hash_policy | tr '\n' ' ') == '1 1 ' ]]; }
check 'multipath_hash = "l4" is set' policy
on r1 sysctl -qw net.ipv4.fib_multipath_hash_policy=0 net.ipv6.fib_multipath_hash_policy=0
wait_until 10 'somebody set another value' policy

section 'Interfaces'
# Each ends with all of BGP back, since zebra sees it as well.
back() { bgp_converged && steady; }
ipr r1 link set eth2 down
wait_until 10 'eth2 is down: its route is gone' not_ours r1 10.30.1.0/24
ipr r1 link set eth2 up
wait_until 60 'eth2 is up: all is back' back

ipr r1 addr add 192.0.2.1/24 dev eth2
ipr r1 addr del 192.0.2.1/24 dev eth2
mended 10 'an address of eth2 came and went, and the IPv4 neighbours with it'

# FRR gets the time to see each step: when an interface comes and goes too quickly, zebra (10.3) loses
# its own next-hop object and never sends the route again ("B>r" in show ip route).
frr_lost_eth2() { [[ $(vtysh r1 'show bgp neighbors eth2 json' | jq -r '.eth2.bgpState') != Established ]]; }
frr_sees() { vtysh r1 "show interface $1" | grep -q "is up, line protocol is up"; }
index=$(ipr r1 -j link show eth2 | jq '.[0].ifindex')
ipr r1 link set eth2 down
wait_until 20 'FRR has lost its neighbour on eth2' frr_lost_eth2
ipr r1 link set eth2 name wan7
ipr r1 link set wan7 up
wait_until 20 'FRR sees wan7' frr_sees wan7
wait_until 20 'eth2 is wan7 now, where FRR has no neighbour: its route is gone' not_ours r1 10.30.1.0/24
ipr r1 link set wan7 down
wait_until 20 'FRR sees it down' not frr_sees wan7
ipr r1 link set wan7 name eth2
ipr r1 link set eth2 up
wait_until 90 'and renamed back: all is back' back

# A session of BGP unnumbered does not come up again on an interface that was made anew (zebra sends
# no router advertisements there); static routes do.
frr_configure r1 'ipv6 route 2001:db8:105::/48 fe80::ff:fe00:300 eth2' 'ip route 198.51.105.0/24 192.0.2.2 eth2'
static4() { preferred r1 198.51.105.0/24 | jq -e '.protocol == "1" and .metric == 10 and .dev == "eth2" and .gateway == "192.0.2.2"'; }
static_there() { ours r1 2001:db8:105::/48 eth2 && static4; }
static_gone() { not_ours r1 2001:db8:105::/48 && not_ours r1 198.51.105.0/24 && not_ours r1 10.30.1.0/24; }
ipr r1 addr add 192.0.2.1/24 dev eth2
wait_until 20 'static routes over eth2' static_there

ipr r1 link del eth2
wait_until 10 'eth2 was deleted: its routes are gone' static_gone
link r1 eth2 02:00:00:00:01:02 r3 eth0 02:00:00:00:03:00
ipr r1 addr add 192.0.2.1/24 dev eth2
check 'and made anew, with another index' not test "$(ipr r1 -j link show eth2 | jq '.[0].ifindex')" = "$index"
wait_until 30 'the routes are back' static_there

ipr r1 link set eth2 netns "$(ns r2)"
wait_until 10 'eth2 went to another namespace: its routes are gone' static_gone
ipr r2 link set eth2 netns "$(ns r1)"
ipr r1 link set eth2 up
ipr r1 addr add 192.0.2.1/24 dev eth2
wait_until 30 'and came back: the routes are back' static_there
check 'the others are as ever' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 10 'nothing is pending or failed' all_installed r1

lab_passed
