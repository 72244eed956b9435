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
offload sw show ports
offload sw show status
offload sw show routes
offload sw explain 10.1.1.1
offload sw show offload | head -60

lab_passed
