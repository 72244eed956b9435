#!/usr/bin/env bash
# BGP unnumbered over representors, and the switch forwards: what hosts send each other never meets the CPU.
. "$(dirname "$0")/../lib.sh"

lab_init switch-offload
switch_steady

section 'In hardware'
wait_until 20 'a rule for each network' rules_for 4
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

lab_passed
