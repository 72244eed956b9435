#!/usr/bin/env bash
# README and docs: what they tell to type on a router of the demo works there.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"
. "$LAB_SOURCE/documented.sh"

lab_init docs
three_routers
offload_start r1
wait_until 40 'BGP has converged' bgp_converged
# A block may leave it stopped.
at_rest() { { alive r1/frr-offload || offload_revive r1; } && synced r1 && all_installed r1 && ours r1 10.20.1.0/24 'eth0 eth1'; }

section 'What is documented'
all_documented r1 at_rest

section 'And the router is as it was'
wait_until 60 'in place' at_rest
check 'doctor finds nothing that needs mending' finds_nothing r1

lab_passed
