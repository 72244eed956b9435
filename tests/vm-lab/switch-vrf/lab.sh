#!/usr/bin/env bash
# Ports in VRFs (l3mdev): BGP unnumbered in each, the same prefix in both, and what leaks from one to the other. A port is moved
# while others forward; the VRF gets another name, is deleted and made again with another table.
. "$(dirname "$0")/../lib.sh"

lab_init switch-vrf
# shellcheck disable=SC2034  # of lib.sh
VRF=([h1]=red [h2]=red)
before_frr() {
    ipr sw link add red type vrf table 101
    ipr sw link set red up
    for host in h1 h2 h3; do ipr sw link set "${PORT[$host]}" master red; done
    ipr sw link set pf0vf3 up
    # In red 10.9.0.0/24 is h2's; in the default VRF it is the uplink's, where nobody answers.
    ipr h2 addr add 10.9.0.1/32 dev lo
    ipr up addr del 10.9.0.1/24 dev lo
    # What leaks: h0 has 10.70.0.1, too.
    ipr h0 addr add 10.70.0.1/32 dev lo
}
switch_steady h0 h1 h2 up
frr_configure h2 'router bgp 65012' 'address-family ipv4 unicast' 'network 10.9.0.0/24'
frr_configure sw 'ip route 10.1.1.0/24 pf0vf1 nexthop-vrf red' 'vrf red' 'ip route 10.70.0.0/24 10.1.0.1 nexthop-vrf default'
alias_of shared 10.9.0.1
alias_of leaked 10.70.0.1
alias_of h0 10.1.0.1 2001:db8:10::1

# route TABLE PREFIX EXPRESSION: jq says yes to what the daemon says of that route.
route() {
    local json
    json=$(offload sw show routes "$2" --table "$1" --json) || return 1
    jq -e ".[0] | $3" <<<"$json" >/dev/null || { jq -c . <<<"$json"; return 1; }
}
in_hardware() { route "$1" "$2" '.offload == "hardware" and .reason == null'; }
# says TEXT COMMAND...: of the command line.
says() {
    local text=$1 output
    shift
    output=$(offload sw "$@" 2>&1) || true
    [[ $output == *"$text"* ]] || { echo "$output"; return 1; }
}

section 'Each VRF by itself'
wait_until 30 "h2's network" in_hardware 101 10.1.2.0/24
wait_until 20 'and 10.9.0.0/24 in red' in_hardware 101 10.9.0.0/24
wait_until 20 'and in the default VRF' in_hardware 254 10.9.0.0/24
wait_until 20 'IPv6' in_hardware 101 2001:db8:12::/64
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'in red' hops_to h1 h2
by_hardware 'and IPv6' hops_to h1 h2 6
by_hardware 'IPv6 in the default VRF' hops_to h0 up 6
by_hardware 'what both have leads to h2 from red' hops_to h1 shared
never 'and not from the default VRF' reaches h0 10.9.0.1 10.1.0.1
never "red's own networks are not seen from there" reaches h0 10.1.2.1 10.1.0.1

section 'What leaks is the kernel'"'"'s'
leaks() { route "$1" "$2" '.offload == "software" and .reason == "nexthop-other-vrf"'; }
wait_until 20 'from the default VRF to red' leaks 101 10.70.0.0/24
wait_until 20 'and back' leaks 254 10.1.1.0/24
ipr h1 route add 10.70.0.0/24 via inet6 "$(link_local sw pf0vf1)" dev vf0_1
wait_until 10 'it is forwarded, there and back' hops_to h1 leaked
by_cpu 'by the CPU' hops_to h1 leaked

section 'Names'
check 'routes' says '101 (red)' show routes --vrf red
check 'offload' says '101 (red)' show offload --kind route
check 'ports' says '101 (red)' show ports
check 'neighbours' says 'pf0vf1 (red)' show neighbours
check 'nexthops' says 'pf0vf2 (red)' show nexthops
check 'a next hop in another VRF' says 'pf0vf0 (default)' show routes 10.70.0.0/24 --vrf red
check 'explain' says '10.1.2.0/24 table 101 (red)' explain 10.1.2.1 --vrf red
check 'what red has not' says 'since the VRF has none' explain 10.1.0.1 --vrf red
check 'plan' says '10.1.2.0/24 vrf red' plan --full

section 'Own addresses'
# answered ADDRESS: by the router itself, whose TTL nobody has touched. forwarded: by h2, one less.
answered() { hears h1 ' ttl=64 ' -I "$([[ $1 == *:* ]] && echo "${ADDRESS6[h1]}" || echo 10.1.1.1)" "$1"; }
has_exception() { has_rule pf0vf1 "$1"; }
ipr h2 addr add 10.1.2.77/32 dev lo
alias_of mine 10.1.2.77
by_hardware "a host's address" hops_to h1 mine
# Not at ports of BGP sessions, whose next hops would follow.
ipr sw addr add 10.1.2.77/32 dev pf0vf3
wait_until 10 'it is ours: an exception' has_exception 10.1.2.77
check 'and answered' answered 10.1.2.77
ipr sw addr del 10.1.2.77/32 dev pf0vf3
ipr sw addr add 10.1.2.77/32 dev red
wait_until 10 'moved to another link of the VRF: still' has_exception 10.1.2.77
ipr sw addr del 10.1.2.77/32 dev red
wait_until 10 'gone' not has_exception 10.1.2.77
by_hardware 'and it is the host again' hops_to h1 mine
ipr sw addr add 10.1.2.78 peer 10.1.2.79/32 dev pf0vf3
ipr sw -6 addr add 2001:db8:12::77/128 dev red nodad preferred_lft 0
wait_until 10 'with a peer' has_exception 10.1.2.78
wait_until 10 'deprecated' has_exception 2001:db8:12::77
check 'answered' answered 10.1.2.78
check 'and IPv6' answered 2001:db8:12::77
ipr sw addr del 10.1.2.78 peer 10.1.2.79/32 dev pf0vf3
ipr sw -6 addr del 2001:db8:12::77/128 dev red

section 'A port moves to red and back, under traffic'
ping_start others h1 10.1.2.1 10.1.1.1
ipr h0 route add 10.9.0.0/24 via inet6 "$(link_local sw pf0vf0)" dev vf0_0 metric 5
received() { ipr "$1" -s -j link show "${FAR[$1]}" | jq '.[0].stats64.rx.packets'; }
ipr sw link set pf0vf0 master red
wait_until 10 'the daemon says so' event port-moved 'pf0vf0 looks up table 101 (red) now'
admits() { offload sw show ports --json | jq -e '.[] | select(.name == "pf0vf0") | .vrf == "red" and .admits == ["ipv4", "ipv6"]'; }
wait_until 10 'and lets it in' admits
wait_until 20 'the rules stay as they are' rules_quiet
up=$(received up) h2=$(received h2)
on h0 ping -q -n -c 30 -i 0.02 -W 1 -I 10.1.0.1 10.9.0.1 >"$LAB/pings" || true
up=$(($(received up) - up))
check "what h0 sends to 10.9.0.1 is not the uplink's any more ($up packets)" test "$up" -lt 20
ipr sw link set pf0vf0 nomaster
wait_until 10 'back' event port-moved 'pf0vf0 looks up table 254 now'
check 'the others have lost nothing' test "$(ping_lost others h1)" = 0

section 'Another table, and another name'
ipr sw link del red
wait_until 20 'without the VRF its ports are in the default one' says 'pf0vf1 looks up table 254 now' show events
ipr sw link add red type vrf table 202
ipr sw link set red up
for host in h1 h2; do ipr sw link set "${PORT[$host]}" master red; done
wait_until 60 'made again: its routes' in_hardware 202 10.1.2.0/24
wait_until 60 'and those of h1' in_hardware 202 10.1.1.0/24
wait_until 20 'traffic' hops_to h1 h2
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'in the new table' hops_to h1 h2
old_rules() { offload sw show offload --table 101 --json | jq length; }
check 'of the old one nothing is left' test "$(old_rules)" = 0
# At the end: zebra 10.3 ends when a VRF gets another name ("table id overlaps existing vrf").
ipr sw link set red name crimson
wait_until 20 'another name is shown' says '202 (crimson)' show ports
check 'the old one is none' says 'there is no VRF device red' explain 10.1.2.1 --vrf red

lab_passed
