#!/usr/bin/env bash
# The story of the offload: a switch with hosts on its VFs and behind its uplink, BGP unnumbered, our
# daemon on the router. Run in the VM by `make demo-offload`. Not a test of details (those are the
# labs), but nothing in it may be untrue.
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
wait_until 30 'the switch has a rule for each network' rules_for 4
show frr-offload show ports
show frr-offload show offload --summary

section '3. As the kernel has them'
show ip route show proto redirect
show ip neigh show to 169.254.0.0/16

section '4. Traffic from h0 to h1'
show frr-offload explain "${ADDRESS4[h1]}"
by_hardware 'it crosses the router, TTL one less' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
by_hardware 'and to the uplink' hops_to h2 up
printf '\n%ssw# ethtool -S pf0vf0%s\n' "$DIM" "$PLAIN"
ethtool -S pf0vf0
show frr-offload show offload --dev pf0vf0 --kind route
show frr-offload show counters
show frr-offload show counters pf0vf0
# The ports share a block; without one the rules hang at each of them.
read -r chain where < <(offload sw show offload 10.1.1.0/24 --json |
    jq -r '.[0] | "\(.chain) " + if .block then "block \(.block)" else "dev \(.port) ingress" end')
printf '\n%ssw# tc -s filter show %s chain %s | grep -A 8 10.1.1.0%s\n' "$DIM" "$where" "$chain" "$PLAIN"
# shellcheck disable=SC2086  # words
tc -s filter show $where chain "$chain" | grep -A 8 10.1.1.0
check 'every rule is in hardware' all_in_hw
printf '\n%ssw# frr-offload plan --full | grep 10.1.1.0/24%s\n' "$DIM" "$PLAIN"
offload sw plan --full | grep -F 10.1.1.0/24

section '5. A host goes silent: its neighbour is STALE, and hardware forwards all the same'
ipr sw neigh change "$(link_local h1 "${FAR[h1]}")" dev pf0vf1 nud stale
by_hardware 'from h0 to h1' hops_to h0 h1

lab_passed
