#!/usr/bin/env bash
# VLAN sub-interfaces of a port as ways in and out: BGP unnumbered over two of them (RFC 5549) and over an untagged VF, and
# what hosts send each other changes its tag in hardware, also from one VLAN to another of the same port. A sub-interface
# that goes, comes again or moves to a VRF, and a daemon that starts again; at last a driver that knows no tags.
. "$(dirname "$0")/../lib.sh"

lab_init switch-vlan

#     h0  vf0_0.100 \                    +----+- pf0vf1 -- vf0_1  h1
#     h2  vf0_0.200 -- vf0_0 -- pf0vf0 -+ sw |
#     h4  vf0_0.300 /                    +----+- pf0vf3 -- vf0_3  h3
#
# h0, h1 and h2 speak BGP. h4 has a subnet, 10.60.4.0/24, and so has h3: zebra 10.3 is killed by a link that it sends router
# advertisements to and that is deleted, so sub-interfaces that go or move are those without.
PORT+=([trunk]=pf0vf0) FAR+=([trunk]=vf0_0) NUMBER+=([trunk]=0 [h4]=4)
declare -A ID=([h0]=100 [h2]=200 [h4]=300)

# vlan_sub HOST: the router's sub-interface that leads there.
vlan_sub() { ipr sw link add link pf0vf0 name "${PORT[$1]}" type vlan id "${ID[$1]}" && ipr sw link set "${PORT[$1]}" up; }
# vlan_link HOST: a namespace behind it. vlan_host HOST: with its network on lo. vlan_lan HOST: with a subnet.
vlan_link() {
    local name=$1
    PORT+=(["$name"]="pf0vf0.${ID[$name]}") FAR+=(["$name"]="vf0_0.${ID[$name]}")
    ip netns add "$(ns "$name")"
    routes_packets "$name"
    vlan_sub "$name"
    ipr trunk link add link vf0_0 name "${FAR[$name]}" address "02:00:00:00:02:0${NUMBER[$name]}" type vlan id "${ID[$name]}"
    ipr trunk link set "${FAR[$name]}" netns "$(ns "$name")"
    ipr "$name" link set "${FAR[$name]}" up
}
vlan_host() {
    vlan_link "$1"
    HOSTS+=("$1")
    ipr "$1" addr add "${ADDRESS4[$1]}/24" dev lo
    ipr "$1" addr add "${ADDRESS6[$1]}/64" dev lo
}
vlan_lan() {
    vlan_link "$1"
    alias_of "$1" 10.60.4.2
    ipr sw addr add 10.60.4.1/24 dev "${PORT[$1]}"
    ipr "$1" addr add 10.60.4.2/24 dev "${FAR[$1]}"
    ipr "$1" route add default via 10.60.4.1
}
# in_hardware HOST...: both their networks are.
in_hardware() {
    local name
    for name in "$@"; do
        shows sw "${NETWORK4[$name]}" '.offload == "hardware"' && shows sw "${NETWORK6[$name]}" '.offload == "hardware"' || return 1
    done
}
# port PORT EXPRESSION: jq says yes to what the daemon says of it.
port() {
    local json
    json=$(offload sw show ports --json | jq -c --arg name "$1" '.[] | select(.name == $name)') || return 1
    jq -e "$2" <<<"$json" >/dev/null || { echo "$json"; return 1; }
}
# tagged ID: how many rules admit what bears that tag.
tagged() { offload sw show offload --kind admit --json | jq "[.[] | select(.match | test(\"vlan_id $1 \"))] | length"; }

[[ $(frr_major) -ge 10 ]] || skip "FRR $FRR_VERSION has no -R; takeover needs 10 or later"
# One switch: its rules are read often.
switch_router pfs=1 vfs=4
switch_link trunk
vlan_host h0
vlan_host h2
switch_host h1
switch_frr
offload_start sw 'setup = "takeover"'
wait_until 30 'BGP has converged' switch_converged
wait_until 20 'the replay is over' synced sw

section 'In and out'
check 'a part of its port' port pf0vf0.100 '.role == "vlan" and .lower == "pf0vf0" and .vlan == 100 and .admits == ["ipv4", "ipv6"]'
wait_until 20 'all networks are in hardware' in_hardware h0 h1 h2
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'from a VLAN to an untagged VF, and back' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
by_hardware 'from VLAN 100 to VLAN 200 of the same port' hops_to h0 h2
by_hardware 'and IPv6' hops_to h2 h0 6
explained() { offload sw explain 10.1.2.1 | grep -q '(tagged).* out of pf0vf0 in VLAN 200 to 02:00:00:00:02:02'; }
check 'explain says so' explained
on h0 ping -n -c 1 -t 1 -W 1 -I 10.1.0.1 10.1.1.1 >"$LAB/expired" || true
check 'what expires goes to the kernel' grep -q 'Time to live exceeded' "$LAB/expired"

section 'kill -9, and again, under traffic'
stream_start there h0 10.1.2.1 10.1.0.1
flow() { stream_flows there h0; }
wait_until 10 'packets flow' flow
rule_texts >"$LAB/before"
cpu=$(cpu_forwarded)
kill_hard sw/frr-offload
offload_revive sw
wait_until 30 'the replay is over' synced sw
wait_until 20 'the rules stay as they are' rules_quiet
check 'none of them was written' rules_kept "$LAB/before"
check 'nor added' test "$(rule_texts | wc -l)" = "$(wc -l <"$LAB/before")"
check 'packets flow' flow
lost=$(stream_lost there h0)
cpu=$(($(cpu_forwarded) - cpu))
check "none was lost ($lost), the CPU forwarded none ($cpu)" test "$lost$cpu" = 00

section 'A sub-interface comes, goes, and comes again'
vlan_lan h4
ipr h1 route add 10.60.4.0/24 via inet6 fe80::ff:fe00:1 dev vf0_1
check 'a host of its subnet' hops_to h1 h4
wait_until 20 'is in hardware' has_rule pf0vf1 10.60.4.2
comes_tagged() { [[ $(tagged 300) -gt 0 ]] && all_in_hw; }
wait_until 20 'and what it sends is admitted' comes_tagged
by_hardware 'its packets, too' hops_to h1 h4
ipr sw link del pf0vf0.300
gone() { [[ $(tagged 300) == 0 ]]; }
wait_until 20 'it goes: nothing of VLAN 300 is admitted' gone
check 'of VLAN 200 it is' test "$(tagged 200)" -gt 0
by_hardware 'which forwards in hardware' hops_to h2 h0
vlan_sub h4
ipr sw addr add 10.60.4.1/24 dev pf0vf0.300
wait_until 20 'it comes again' hops_to h1 h4
wait_until 20 'its host is in hardware' has_rule pf0vf1 10.60.4.2
wait_until 20 'and what it sends is admitted' comes_tagged
by_hardware 'as before' hops_to h1 h4

section 'It moves to a VRF, while its port stays where it is'
ipr sw link add red type vrf table 1001
ipr sw link set red up
ipr sw link set pf0vf0.300 master red
switch_link h3
ipr sw link set pf0vf3 master red
ipr sw addr add 10.50.3.1/24 dev pf0vf3
ipr h3 addr add 10.50.3.2/24 dev vf0_3
ipr h3 route add default via 10.50.3.1
alias_of h3 10.50.3.2
check 'its subnet is routed there' hops_to h4 h3
check 'it is of that VRF' port pf0vf0.300 '.vrf == "red" and .table == 1001 and .admits == ["ipv4", "ipv6"]'
wait_until 20 'hosts of both ports are in hardware' has_rule pf0vf3 10.60.4.2
wait_until 20 'also for what comes in tagged' has_rule pf0vf0 10.50.3.2
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'inside of the VRF' hops_to h3 h4
by_hardware 'and outside' hops_to h0 h1

section 'A driver that knows no tags'
kill_hard sw/frr-offload
knob no_vlan 1
offload_revive sw
wait_until 30 'the replay is over' synced sw
wait_until 20 'the port says so' port pf0vf0.100 '.admits == [] and (.reasons | index("vlan-unfit"))'
wait_until 20 'what leads there, too' shows sw "${NETWORK4[h0]}" '.offload == "software" and .reason == "vlan-unfit"'
check 'nothing tagged is admitted' test "$(tagged 100)$(tagged 200)" = 00
by_cpu 'the kernel forwards' hops_to h0 h1
wait_until 20 'what is untagged is in hardware' in_hardware h1

lab_passed
