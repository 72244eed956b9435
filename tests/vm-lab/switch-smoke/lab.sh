#!/usr/bin/env bash
# The simulated switch and what labs ask it, without FRR and our daemon: static routes on the slow
# path, rules by hand in hardware, counters, refusals and a full table.
. "$(dirname "$0")/../lib.sh"

lab_init switch-smoke
switch_router
switch_host h0 h1
for host in h0 h1; do
    router_port=${PORT[$host]} host_port=${FAR[$host]}
    ipr sw route add "${NETWORK4[$host]}" via inet6 "$(link_local "$host" "$host_port")" dev "$router_port"
    ipr "$host" route add 0.0.0.0/0 via inet6 "$(link_local sw "$router_port")" dev "$host_port"
done

section 'Slow path'
wait_until 10 'there is a way' hops_to h0 h1
slow=$(port_counter pf0vf0 slow_rx_packets)
by_cpu 'from VF to VF' hops_to h0 h1
check 'the representor counts it' test "$(port_counter pf0vf0 slow_rx_packets)" -ge $((slow + 4))

section 'Hardware'
rule_by_hand h0 h1
rule_by_hand h1 h0
in_hw() { tc filter show dev pf0vf0 ingress | grep -q '^  in_hw in_hw_count 1$'; }
check 'the kernel says in_hw' in_hw
by_hardware 'from VF to VF' hops_to h0 h1
counted() { tc -s filter show dev pf0vf0 ingress | grep -q 'Sent hardware [1-9][0-9]* bytes 4 pkt'; }
check 'tc has the counters of the hardware' counted
check 'two rules' test "$(rule_count)" = 2
check 'ethtool counts them' test "$(port_counter pf0vf0 offloaded_rules)" = 1

section 'Refusals'
drop() { tc filter add dev pf0vf0 ingress protocol ip prio "$1" flower ${3:+"$3"} dst_ip "$2" action drop; }
knob max_rules 2
refused() { ! answer=$(drop 9 10.99.0.1 skip_sw 2>&1) && [[ $answer == *'table full'* ]]; }
check 'a full table refuses skip_sw' refused
check 'without skip_sw tc is content' drop 9 10.99.0.1
only_software() { tc filter show dev pf0vf0 ingress prio 9 | grep -q not_in_hw; }
check 'and it is not in hardware' only_software
knob max_rules 0
knob no_goto 1
goto() { tc filter add dev pf0vf0 ingress protocol ip prio 8 flower skip_sw dst_ip 10.99.0.2 action goto chain 7; }
never 'a driver without goto refuses it' goto
knob no_goto 0
check 'one with it takes it' goto

lab_passed
