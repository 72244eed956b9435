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
foreign() { ipr r1 -N route show exact 10.30.1.0/24 metric 10 | grep '10.30.1.0/24 proto 196 '; }
check 'and it is left alone' foreign
ipr r1 route del blackhole 10.30.1.0/24 metric 10
mended 10 'it went: ours is back'

section 'Next-hop objects'
ipr r1 nexthop del id "$(id_of 10.30.1.0/24)"
mended 3 'the object of a route was deleted, and by the kernel the route with it'
ipr r1 nexthop del id "$(id_of 10.20.1.0/24)"
mended 3 'a group was deleted'
ipr r1 nexthop replace id "$(id_of 10.30.1.0/24)" via 169.254.0.1 dev eth0 onlink proto 1
mended 10 'an object was led astray'
ipr r1 nexthop flush proto 1 || true
mended 5 'all objects were flushed'

section 'Neighbours'
entry() { ipr r1 neigh show "$(hops "$(preferred r1 10.30.1.0/24)" | cut -d' ' -f2)" dev eth2; }
address=$(entry | cut -d' ' -f1)
ipr r1 neigh del "$address" dev eth2
mended 3 'a neighbour was deleted'
ipr r1 neigh replace "$address" dev eth2 lladdr 02:00:00:00:66:66 nud permanent
mended 10 'a neighbour got another MAC'
# ip gives up after ten rounds: they are mended as fast as it deletes.
ipr r1 neigh flush dev eth0 nud permanent || true
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

# What follows is for a link with static routes only: zebra (10.3) may crash or lose its own next-hop
# object when an interface disappears on which it sends router advertisements for BGP.
new_eth3() {
    link r1 eth3 02:00:00:00:01:03 r3 eth1 02:00:00:00:03:01
    ipr r1 addr add 192.0.2.1/24 dev eth3
}
new_eth3
frr_configure r1 'ipv6 route 2001:db8:105::/48 fe80::ff:fe00:301 eth3' 'ip route 198.51.105.0/24 192.0.2.2 eth3'
static4() { preferred r1 198.51.105.0/24 | jq -e '.protocol == "1" and .metric == 10 and .dev == "eth3" and .gateway == "192.0.2.2"'; }
static_there() { ours r1 2001:db8:105::/48 eth3 && static4; }
static_gone() { not_ours r1 2001:db8:105::/48 && not_ours r1 198.51.105.0/24; }
wait_until 20 'static routes over eth3' static_there

frr_sees() { vtysh r1 "show interface $1" | grep -q 'is up, line protocol is up'; }
ipr r1 link set eth3 down
wait_until 20 'FRR sees eth3 down' not frr_sees eth3
ipr r1 link set eth3 name wan7
ipr r1 link set wan7 up
wait_until 20 'it was renamed, FRR sees wan7' frr_sees wan7
wait_until 10 'the routes over eth3 are gone' static_gone
ipr r1 link set wan7 down
wait_until 20 'FRR sees wan7 down' not frr_sees wan7
ipr r1 link set wan7 name eth3
ipr r1 link set eth3 up
wait_until 30 'renamed back: the routes are back' static_there

index=$(ipr r1 -j link show eth3 | jq '.[0].ifindex')
ipr r1 link del eth3
wait_until 10 'eth3 was deleted: its routes are gone' static_gone
new_eth3
check 'and made anew, with another index' not test "$(ipr r1 -j link show eth3 | jq '.[0].ifindex')" = "$index"
wait_until 30 'the routes are back' static_there

ipr r1 link set eth3 netns "$(ns r2)"
wait_until 10 'eth3 went to another namespace: its routes are gone' static_gone
ipr r2 link set eth3 netns "$(ns r1)"
ipr r1 link set eth3 up
ipr r1 addr add 192.0.2.1/24 dev eth3
wait_until 30 'and came back: the routes are back' static_there

section 'After all that'
wait_until 20 'the others are as ever' steady
check 'traffic' no_loss r3 10.20.1.1 10.30.1.1

lab_passed
