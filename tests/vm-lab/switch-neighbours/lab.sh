#!/usr/bin/env bash
# Neighbours drive the offload. What the classic script that polls them every second can't: a neighbour that is STALE
# keeps its rules, and a new MAC is heard at once and rewrites the rules that carry it and no others. h0 and h1 are routers,
# h1's link-local tells no MAC; h2 and h3 are plain hosts.
. "$(dirname "$0")/../lib.sh"

lab_init switch-neighbours
before_frr() {
    ipr h1 link set vf0_1 down
    ipr h1 link set vf0_1 addrgenmode none
    ipr h1 link set vf0_1 up
    ipr h1 addr add fe80::77/64 dev vf0_1
    on h1 sysctl -qw net.ipv6.conf.vf0_1.ndisc_notify=1
}
switch_steady h0 h1
switch_lan h2 h3
ipr h0 route add 10.50.0.0/16 via inet6 "$(link_local sw pf0vf0)" dev vf0_0
# Their neighbours age in seconds instead of minutes.
on h3 sysctl -qw net.ipv4.conf.vf0_3.arp_notify=1 net.ipv6.conf.vf0_3.ndisc_notify=1
sysctl -qw net.ipv4.neigh.pf0vf3.base_reachable_time_ms=2000 net.ipv6.neigh.pf0vf3.base_reachable_time_ms=2000 \
    net.ipv4.neigh.pf0vf3.delay_first_probe_time=1 net.ipv6.neigh.pf0vf3.delay_first_probe_time=1

section 'Hosts'
wait_until 20 'rules for the networks of the routers' rules_for 2
there() { hops_to h2 h3 "$1"; }
wait_until 10 'there is a way from host to host' there 4
wait_until 10 'and IPv6' there 6
wait_until 20 'rules for both hosts' host_rules h2 h3
by_hardware 'from host to host' hops_to h2 h3
by_hardware 'and back, IPv6' hops_to h3 h2 6
by_hardware 'from router to host' hops_to h0 h2
check 'the kernel looks for one that has no rule' hears h2 'Destination Host Unreachable' 10.50.3.99
wait_until 20 'the rules stay as they are' rules_quiet

section 'STALE keeps the offload'
rule_texts >"$LAB/before"
state() { ipr sw neigh show "$1" dev "$2"; }
for key in '10.50.2.2 pf0vf2' '2001:db8:52::2 pf0vf2' "fe80::77 pf0vf1" "$(link_local h0 vf0_0) pf0vf0"; do
    read -r address port <<<"$key"
    ipr sw neigh change "$address" dev "$port" nud stale
    say "$address: $(state "$address" "$port")"
done
by_hardware 'from host to host' hops_to h3 h2
by_hardware 'from router to router' hops_to h0 h1
# Long enough for the short-lived ones to be STALE and asked again a few times.
sleep 8
check 'no rule was written' rules_kept "$LAB/before"
by_hardware 'and they still forward' hops_to h2 h3

section 'A new MAC'
# written PATTERN: whatever was written anew since is a rule with that in it.
written() { local gone; gone=$(rules_gone "$LAB/before"); [[ -n $gone ]] || return 1; ! grep -v -- "$1" <<<"$gone"; }
# new_mac WHOSE HOST DEVICE PORT LAST: from now on the last byte of the device's address is that, written in hex.
new_mac() {
    rule_texts >"$LAB/before"
    ipr "$2" link set "$3" address "02:00:00:00:01:$5"
    hops_carry() { rule_texts "$1" | grep -q "eth+4: val 01$2"; }
    wait_until 20 "$1: its hops carry it" hops_carry "$4" "$5"
    wait_until 20 'the rules stay as they are' rules_quiet
    check 'only rules with a MAC were written' written 'pedit'
    say "$(rules_gone "$LAB/before" | wc -l) of $(wc -l <"$LAB/before") rules"
}
new_mac 'of the router' h1 vf0_1 pf0vf0 71
wait_until 10 'it answers' hops_to h0 h1
by_hardware 'in hardware' hops_to h0 h1
new_mac 'of the host' h3 vf0_3 pf0vf2 73
wait_until 10 'it answers' hops_to h2 h3
by_hardware 'in hardware' hops_to h2 h3

section 'Gone'
lacks() { ! has_rule "$@"; }
silent() {
    on "$1" tc qdisc add dev "$2" clsact
    on "$1" tc filter add dev "$2" ingress protocol ipv6 flower ip_proto icmpv6 type 135 action drop
}
silent h1 vf0_1
ipr sw neigh change fe80::77 dev pf0vf1 nud failed
wait_until 20 'a router without EUI-64 that fails: no rule leads there' lacks pf0vf0 10.1.1.0/255.255.255.0
on h1 tc qdisc del dev vf0_1 clsact
wait_until 60 'it answers again, and its rule is back' has_rule pf0vf0 10.1.1.0/255.255.255.0
wait_until 20 'and traffic' hops_to h0 h1
ipr h3 link set vf0_3 down
wait_until 40 'a host that is off: no rule leads there' lacks pf0vf2 10.50.3.2
check 'the kernel says so' hears h2 'Destination Host Unreachable' 10.50.3.2
check 'the other hosts stay' has_rule pf0vf3 10.50.2.2

lab_passed
