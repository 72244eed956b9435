#!/usr/bin/env bash
# Unequal paths: r2 asks for three times the traffic on its second link (BGP link bandwidth).
#
# FRR turns 1:3 into 25:75 (8.4), 84:254 (10.3) or 85:255 (10.7), and the wire carries one less:
# the ratio is what counts.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init weights
three_routers
offload_start r1
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1
wait_until 10 'equal at first' ours r1 10.20.1.0/24 'eth0 eth1'

# one_to_three PREFIX: the kernel's weights of eth0 and eth1, within 3 %.
one_to_three() {
    local eth0 eth1
    ours r1 "$1" 'eth0 eth1' || return 1
    read -r eth0 eth1 < <(weights r1 "$1" | tr -c '0-9 \n' ' ' | awk '{ print $2, $4 }')
    ((100 * eth1 >= 291 * eth0 && 100 * eth1 <= 309 * eth0)) || { echo "weights: $(weights r1 "$1")"; return 1; }
}

announce_weights
wait_until 30 'IPv4: one to three' one_to_three 10.20.1.0/24
wait_until 30 'IPv6: one to three' one_to_three 2001:db8:20::/64
say "weights in the kernel: $(weights r1 10.20.1.0/24)"
check 'show routes has the same ratio' shows r1 10.20.1.0/24 \
    '[.nexthops | sort_by(.dev)[].weight] | .[1] / .[0] | . > 2.91 and . < 3.09'
check 'traffic' reaches r1 10.20.1.1 10.10.1.1

lab_passed
