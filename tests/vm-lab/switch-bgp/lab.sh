#!/usr/bin/env bash
# BGP unnumbered over representors: VFs and uplink are peers of the router, our daemon writes its
# kernel, and what hosts send each other crosses it on the slow path, one TTL less: with the offload
# off, nothing is written into the switch.
. "$(dirname "$0")/../lib.sh"

lab_init switch-bgp
# shellcheck disable=SC2034  # of lib.sh
OFFLOAD_CONF=$'[offload]\nmode = "off"'
switch_steady

section 'Routes'
for host in "${HOSTS[@]}"; do
    check "the network of $host: ours, over ${PORT[$host]}" ours sw "${NETWORK4[$host]}" "${PORT[$host]}"
    check "and IPv6" ours sw "${NETWORK6[$host]}" "${PORT[$host]}"
done
check 'the default route leads to the uplink' ours sw 0.0.0.0/0 p0

section 'Traffic'
slow=$(port_counter pf0vf0 slow_rx_packets)
by_cpu 'from VF to VF' hops_to h0 h1
by_cpu 'and IPv6' hops_to h0 h1 6
by_cpu 'from VF to uplink' hops_to h2 up
check 'the representor counts it as slow path' test "$(port_counter pf0vf0 slow_rx_packets)" -ge $((slow + 8))
check 'no rules are in hardware' test "$(rule_count)" = 0

section 'The bench can tell: rules by hand take it over'
rule_by_hand h0 h1
rule_by_hand h1 h0
by_hardware 'from VF to VF' hops_to h0 h1
tc filter del dev pf0vf0 ingress
tc filter del dev pf0vf1 ingress
by_cpu 'and the CPU has it again' hops_to h0 h1

section 'A VF goes away'
ipr h1 link set vf0_1 down
wait_until 20 'its routes too' not_ours sw "${NETWORK4[h1]}"
ipr h1 link set vf0_1 up
wait_until 40 'and they come back' ours sw "${NETWORK4[h1]}" pf0vf1
wait_until 20 'with its traffic' hops_to h0 h1
check 'doctor finds nothing that needs mending' finds_nothing sw

lab_passed
