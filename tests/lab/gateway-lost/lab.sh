#!/usr/bin/env bash
# FRR 10.3, restarted, reads its own IPv4 routes back from the kernel without their IPv6 gateway
# ("B>* directly connected, eth0") and streams them so: the same prefix, the same protocol, an
# interface as the only next hop. Written to the kernel that is a black hole.
#
# Here zebra is killed and comes back alone, so that nothing puts it right: for as long as the route
# is stale it keeps the gateway it had, and forwards. Then BGP comes back, and all is as before.
# 8.4 and 10.7 don't lose the gateway; there the lab shows that a replay without BGP takes nothing.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init gateway-lost
OFFLOAD_CONF='fpm.stale_time = "60s"' steady_r1 takeover
static_ways
crossing_start

section 'zebra alone comes back'
kill_hard r1/bgpd r1/zebra
wait_until 10 'the daemon has noticed' not synced r1
frr_revive r1 zebra
wait_until 20 'the new zebra has repeated what it has' synced r1
if [[ $FRR_VERSION == 10.3* ]]; then
    interface_only() { vtysh r1 'show ip route 10.30.1.0/24' | grep -q '\* directly connected, eth2'; }
    check 'its route to 10.30.1.0/24 has lost the gateway' interface_only
    refused() { offload r1 show status | grep gateway-lost; }
    check 'the daemon says that it did not take that' refused
fi
check 'our route to 10.30.1.0/24 has its gateway' ours r1 10.30.1.0/24 eth2
check 'so have those over both links' ours r1 10.20.1.0/24 'eth0 eth1'
check 'and the default route' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
check 'show routes: stale, with the gateway' shows r1 10.30.1.0/24 \
    '.stale and .kernel == "installed" and .nexthops[0].via == "fe80::ff:fe00:300"'
check 'traffic' no_loss r3 10.20.1.1 10.30.1.1
check 'doctor says that they are stale' finds r1 routes-stale 'zebra came back without them'

section 'BGP comes back'
frr_revive r1 bgpd
back() { bgp_converged && steady; }
wait_until 60 'nothing is stale any more' back
check 'show routes: not stale, with the gateway' shows r1 10.30.1.0/24 \
    '(.stale | not) and .nexthops[0].via == "fe80::ff:fe00:300"'
check 'doctor: nothing is stale' finds_nothing r1 routes-stale
not_one_lost 'all the time not one packet was lost'

lab_passed
