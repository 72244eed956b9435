#!/usr/bin/env bash
# BGP unnumbered over representors, and the switch forwards: what hosts send each other never meets the CPU,
# but what a router must see itself, and every packet goes where the kernel would send it.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/documented.sh"

lab_init switch-offload
switch_steady

section 'In hardware'
wait_until 20 'a rule for each network' rules_for 4
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'from VF to VF' hops_to h0 h1
by_hardware 'and back' hops_to h1 h0
by_hardware 'and IPv6' hops_to h0 h1 6
by_hardware 'from VF to uplink' hops_to h2 up

section 'The truth about it'
wait_until 20 'every rule is in hardware, says the daemon' all_in_hw
explained() { offload sw explain 10.1.1.1 | grep -q 'out of pf0vf1 to 02:00:00:00:01:01, TTL less one'; }
check 'explain names the port and the MAC' explained
verdict() { [[ $(offload sw explain 10.1.1.1 --json | jq -r .verdict) == "$1" ]]; }
check 'and the verdict' verdict hardware
ipr sw neigh change "$(link_local h1 "${FAR[h1]}")" dev pf0vf1 nud stale
by_hardware 'a neighbour that is STALE' hops_to h0 h1

section 'What is counted'
# counts FILTER COMMAND...: what show counters and its like say, as JSON.
counts() { offload sw show "${@:2}" --json | jq -e "$1" >/dev/null || { offload sw show "${@:2}"; return 1; }; }
# At least N packets more than before by that rule or hop, all of them in hardware.
route_hw() { offload sw show routes 10.1.1.0/24 --json | jq '.[0].hardware_packets'; }
route_more() { counts ".[0] | .hardware_packets >= $1 and .packets == .hardware_packets and .hardware_bytes >= 84 * .packets" routes 10.1.1.0/24; }
# The port's packets that rules forwarded.
port_hw() { offload sw show counters "$1" --json | jq '.port.rx | .packets - .cpu_packets'; }
before=$(route_hw) port=$(port_hw pf0vf0)
by_hardware 'from VF to VF' hops_to h0 h1
wait_until 20 'the route: four packets more, in hardware' route_more $((before + 4))
said() { offload sw explain 10.1.1.1 | grep -q 'packets in hardware'; }
check 'explain says so' said
next_hop='[.[].nexthops[] | select(.dev == "pf0vf1")] | length > 0 and all(.[]; .hardware_packets >= 4 and .packets == .hardware_packets)'
wait_until 10 'its next hop' counts "$next_hop" nexthops
kinds='.rules | map({key: .kind, value: .}) | from_entries | [.entry, .admit, .route, .hop] | all(.[]; .in_hw == .rules and .hardware_packets > 0 and .packets == .hardware_packets)'
wait_until 10 'rules by kind' counts "$kinds" counters
port_more() { [[ $(port_hw pf0vf0) -ge $((port + 4)) ]]; }
wait_until 10 'the port: four packets more that the CPU did not see' port_more
rates='.ports | map(select(.role != "other")) | length >= 5 and all(.[]; .window_ms >= 2500 and .rx.packets_per_s != null and .rx.cpu_packets_per_s <= .rx.packets_per_s + 1)'
wait_until 10 'rates, of all and of the CPU' counts "$rates" counters
# within ETHTOOL-COUNTER GROUP COUNTER: BGP goes on, so it lies between two answers of ethtool.
within() {
    local before told after
    before=$(port_counter p0 "$1")
    told=$(offload sw show counters p0 --json | jq --arg g "$2" --arg n "$3" '.statistics[] | select(.group == $g and .name == $n) | .value')
    after=$(port_counter p0 "$1")
    ((before <= told && told <= after)) || { echo "$1: $before, $2 $3: $told, $1: $after"; return 1; }
}
check "ethtool's counters" within vport_rx_packets driver vport_rx_packets
check "the link's are those of its vport" within vport_rx_packets link rx_packets
check "the CPU's are those of the slow path" within slow_rx_packets cpu rx_packets
check 'and bytes that were sent' within slow_tx_bytes cpu tx_bytes
names() { diff <(ethtool -S p0 | awk -F: 'NR > 1 { gsub(/ /, "", $1); print $1 }') <(offload sw show counters p0 --json | jq -r '.statistics[] | select(.group == "driver") | .name'); }
check 'all of ethtool -S, in its order' names

section 'One block for all ports'
block=$(block_of p0)
check 'each rule is written once' sharing "$block" p0 pf0vf0 pf0vf1 pf0vf2 pf0vf3
tc qdisc del dev pf0vf1 clsact
wait_until 10 'a qdisc deleted: it is back in the block' sharing "$block" p0 pf0vf0 pf0vf1 pf0vf2 pf0vf3
check 'the daemon says so' event qdisc-stolen pf0vf1
wait_until 10 'every rule is in hardware, says the daemon' all_in_hw
by_hardware 'from it' hops_to h1 h0
by_hardware 'and between others' hops_to h0 h2
# The block goes with the last of them.
for port in p0 pf0vf{0,1,2,3}; do tc qdisc del dev "$port" clsact; done
wait_until 20 'all deleted: the block is back' sharing "$block" p0 pf0vf0 pf0vf1 pf0vf2 pf0vf3
wait_until 20 'with all rules' rules_for 4
wait_until 10 'every rule is in hardware, says the daemon' all_in_hw
by_hardware 'they forward' hops_to h0 h1

section 'What the router must see itself'
check 'an expiring packet' hears h0 'Time to live exceeded' -t 1 -I 10.1.0.1 10.1.1.1
check 'and IPv6' hears h0 'Hop limit' -t 1 -I 2001:db8:10::1 2001:db8:11::1
check 'one to itself' hears h0 ' ttl=64 ' -I 10.1.0.1 10.0.0.1
check 'and IPv6' hears h0 ' ttl=64 ' -I 2001:db8:10::1 2001:db8::1
# A frame for another MAC: nobody routes it.
ipr h0 neigh add fe80::dead lladdr 02:00:00:00:77:77 dev vf0_0 nud permanent
ipr h0 route add 10.1.1.1/32 via inet6 fe80::dead dev vf0_0
cpu=$(cpu_forwarded) hardware=$(hardware_forwarded)
never 'a frame that is not for the router' hears h0 ' ttl=' -I 10.1.0.1 10.1.1.1
check 'it was not forwarded by either' test "$(cpu_forwarded) $(hardware_forwarded)" = "$cpu $hardware"
ipr h0 route del 10.1.1.1/32

section 'A longer prefix with another next hop'
ipr h2 addr add 10.1.1.129/25 dev lo
ipr h2 addr add 2001:db8:11:0:8000::1/65 dev lo
alias_of inner 10.1.1.129 2001:db8:11:0:8000::1
frr_configure h2 'router bgp 65012' 'address-family ipv4 unicast' 'network 10.1.1.128/25' 'exit-address-family' \
    'address-family ipv6 unicast' 'network 2001:db8:11:0:8000::/65'
wait_until 20 'has a rule' has_rule pf0vf0 10.1.1.128/255.255.255.128
wait_until 20 'and IPv6' has_rule pf0vf0 2001:db8:11:0:8000::/ffff:ffff:ffff:ffff:8000::
by_hardware 'it goes there' hops_to h0 inner
by_hardware 'and IPv6' hops_to h0 inner 6
by_hardware 'its neighbour where it went' hops_to h0 h1

section 'A longer prefix that only the kernel knows'
for number in 4 6; do
    case $number in
    4) prefix=10.1.2.128/25 mask=10.1.2.128/255.255.255.128 address=10.1.2.129 via="via inet6 $(link_local up wire0)" ;;
    6) prefix=2001:db8:12:0:8000::/65 mask=2001:db8:12:0:8000::/ffff:ffff:ffff:ffff:8000:: address=2001:db8:12:0:8000::1 via="via $(link_local up wire0)" ;;
    esac
    ipr up addr add "$address" dev lo
    # shellcheck disable=SC2086  # words
    ipr sw "-$number" route add "$prefix" $via dev p0
    alias_of by_hand 10.1.2.129 2001:db8:12:0:8000::1
    wait_until 10 "written by hand, IPv$number: a guard" has_rule pf0vf0 "$mask"
    check 'it goes there' hops_to h0 by_hand "$number"
    by_hardware 'its neighbour where it went' hops_to h0 h2 "$number"
    ipr sw "-$number" route del "$prefix"
    gone() { ! has_rule pf0vf0 "$mask"; }
    wait_until 10 'the guard goes with it' gone
done
# Its host has a rule as soon as the neighbour is known.
ipr sw addr add 10.1.2.201/29 dev pf0vf1
ipr h1 addr add 10.1.2.202/29 dev vf0_1
wait_until 10 'connected: a guard' has_rule pf0vf0 10.1.2.200/255.255.255.248
alias_of on_link 10.1.2.202
check 'it goes there' hops_to h0 on_link
wait_until 10 'its host has a rule' has_rule pf0vf0 10.1.2.202
by_hardware 'it goes there in hardware' hops_to h0 on_link

section 'What is documented'
all_documented sw all_in_hw

section 'A firewall'
wait_until 10 'without one: in hardware' shows sw 10.1.1.0/24 '.offload == "hardware"'
on sw nft 'add table inet lab { chain forward { type filter hook forward priority 0; }; }'
on sw nft 'add rule inet lab forward meta nfproto ipv4 counter'
wait_until 10 'a rule may filter: the route says so' shows sw 10.1.1.0/24 '.offload == "software" and .reason == "forward-filter"'
check 'it goes there by the kernel' hops_to h0 h1
counted() { on sw nft list chain inet lab forward | grep -E 'packets [1-9]'; }
check 'past the firewall' counted
on sw nft delete table inet lab
wait_until 10 'in hardware again' shows sw 10.1.1.0/24 '.offload == "hardware"'
by_hardware 'and so is its neighbour' hops_to h0 h1

lab_passed
