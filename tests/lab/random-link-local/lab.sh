#!/usr/bin/env bash
# A peer whose link-local address does not come from its MAC (RFC 7217 and the like).
#
# zebra computes a MAC from any link-local address all the same and writes 169.254.0.1 with it: a
# MAC nobody has. We have to learn the real one from neighbour discovery, and keep clear of zebra's
# entry by an address of our own.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init random-link-local
three_routers_with_random_r3() {
    # As three_routers, with another link-local address on r3.
    router r1 r2 r3
    link r1 eth0 02:00:00:00:01:00 r2 eth0 02:00:00:00:02:00
    link r1 eth1 02:00:00:00:01:01 r2 eth1 02:00:00:00:02:01
    link r1 eth2 02:00:00:00:01:02 r3 eth0 02:00:00:00:03:00
    ipr r3 link set eth0 down
    ipr r3 link set eth0 addrgenmode random
    ipr r3 link set eth0 up
    second_spine >"$LAB/r3.conf"
    frr_start r1 "$FRR_CONF/daemons.beside" "$FRR_CONF/leaf.conf"
    frr_start r2 "$FRR_CONF/daemons.beside" "$FRR_CONF/spine.conf"
    frr_start r3 "$FRR_CONF/daemons.beside" "$LAB/r3.conf"
}
three_routers_with_random_r3
wait_until 5 'r3 has a link-local address' test "$(link_local r3 eth0)" != null
address=$(link_local r3 eth0)
say "r3 is $address with MAC $(mac r3 eth0)"
check 'which does not come from the MAC' not test "$address" = fe80::ff:fe00:300
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

zebra_is_wrong() {
    local entry
    entry=$(ipr r1 neigh show 169.254.0.1 dev eth2)
    [[ -n $entry && $entry != *"$(mac r3 eth0)"* ]]
}
wait_until 20 "zebra's own 169.254.0.1 has a MAC that does not exist" zebra_is_wrong
say "$(ipr r1 neigh show 169.254.0.1 dev eth2)"
wait_until 20 'our route goes to the real MAC' ours r1 10.30.1.0/24 eth2
check 'show routes: the MAC was learned' shows r1 10.30.1.0/24 \
    ".nexthops[0] | .via == \"$address\" and .mac == \"02:00:00:00:03:00\" and .mac_from == \"learned\""
check 'traffic' reaches r1 10.30.1.1 10.10.1.1
check 'and none of it is lost' no_loss r3 10.20.1.1 10.30.1.1
check 'the links with ordinary addresses are as ever' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 10 'default route over all three' ours r1 0.0.0.0/0 'eth0 eth1 eth2'

lab_passed
