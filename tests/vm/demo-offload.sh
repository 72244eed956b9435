#!/usr/bin/env bash
# The story of the offload: a switch with hosts on its VFs and behind its uplink, BGP unnumbered, our
# daemon on the router. Run in the VM by `make demo-offload`. Not a test of details (those are the
# labs), but nothing in it may be untrue.
#
# What the daemon puts into the switch is to be shown and checked at the places marked "hardware".
. "$(dirname "$0")/../vm-lab/lib.sh"

# show COMMAND...: on the router, as an operator would type it, and what comes out of it.
show() {
    printf '\n%ssw# %s%s\n' "$DIM" "$*" "$PLAIN"
    on sw "$@" | cut -c 1-160
}

section '1. A switch, a router on it, and who is connected'
cat <<'EOF'

   h0  10.1.0.0/24  vf0_0 ---- pf0vf0 +----+
   h1  10.1.1.0/24  vf0_1 ---- pf0vf1 | sw | p0 ---- wire0  up  10.9.0.0/24, default route
   h2  10.1.2.0/24  vf0_2 ---- pf0vf2 +----+

   pf0vf0 to p0 are representors: what no rule in the switch takes comes out of them, to the
   kernel of sw. No link has an IPv4 address; BGP runs over IPv6 link-local addresses.

EOF
lab_init demo-offload
switch_steady

section '2. The routes as frr-offload has them'
show frr-offload show status
show frr-offload show routes -4
# hardware: show frr-offload show offload

section '3. As the kernel has them'
show ip route show proto redirect
show ip neigh show to 169.254.0.0/16

section '4. Traffic from h0 to h1'
show frr-offload explain "${ADDRESS4[h1]}"
# hardware: by_hardware, and every rule in_hw; until then the kernel forwards.
by_cpu 'it crosses the router, TTL one less' hops_to h0 h1
printf '\n%ssw# ethtool -S pf0vf0%s\n' "$DIM" "$PLAIN"
ethtool -S pf0vf0
# hardware: show tc -s filter show dev pf0vf0 ingress
say "rules in the switch: $(rule_count)"

lab_passed
