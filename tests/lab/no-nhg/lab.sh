#!/usr/bin/env bash
# FPM without next-hop groups (no fpm use-next-hop-groups): each route carries its next hops.
#
# FRR 8.4 and 10.3 then send 169.254.0.1 in place of the IPv6 next hop, 10.7 sends it whole. Either
# way the routes must be right.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init no-nhg
sed '/^fpm address/a no fpm use-next-hop-groups' "$FRR_CONF/leaf.conf" >"$LAB/leaf.conf"
three_routers "$FRR_CONF/daemons.beside" "$LAB/leaf.conf"
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

wait_until 15 'two links: ECMP route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 15 'one link: route of ours' ours r1 10.30.1.0/24 eth2
wait_until 15 'default route over all three' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
wait_until 15 'IPv6 route' ours r1 2001:db8:20::/64 'eth0 eth1'
check 'from r1 to the network of r2' reaches r1 10.20.1.1 10.10.1.1
check 'through r1, from r3 to r2' reaches r3 10.20.1.1 10.30.1.1

section 'A cable is pulled'
ipr r2 link set eth1 down
wait_until 15 'the other path carries on' ours r1 10.20.1.0/24 eth0
check 'traffic' reaches r3 10.20.1.1 10.30.1.1
ipr r2 link set eth1 up
wait_until 40 'the cable is back: both paths again' ours r1 10.20.1.0/24 'eth0 eth1'

section 'What doctor says'
at_least() { [[ $(printf '%s\n' "$1" "$FRR_VERSION" | sort -V | head -n 1) == "$1" ]]; }
if at_least 10.7; then words='an update of every route'; else words='works only on links with one router'; fi
wait_until 10 'routes come without groups' finds r1 nexthop-groups-off "$words"
if ! at_least 10.7; then
    # A second router on a link: which one 169.254.0.1 stands for is not known any more.
    ipr r1 neigh add fe80::dead:9 lladdr 02:00:00:00:09:09 dev eth2 nud reachable router
    wait_until 10 'a next hop is lost' finds r1 next-hop-lost 'eth2: '
    mends r1 next-hop-lost
fi
[[ -z $(findings r1 | jq '.[] | select(.id == "nexthop-groups-off")') ]] || mends r1 nexthop-groups-off
wait_until 30 'two links: ECMP route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 30 'one link: route of ours' ours r1 10.30.1.0/24 eth2
wait_until 20 'all is well' finds_nothing r1

lab_passed
