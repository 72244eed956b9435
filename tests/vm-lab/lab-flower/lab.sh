#!/usr/bin/env bash
# `mode = "skip_hw"`, the lab on a laptop: veth ports in a VRF, flower in software. Two hosts of connected subnets talk
# both ways by rules, which come before the VRF; the kernel's own forwarding sees none of it.
. "$(dirname "$0")/../lib.sh"

lab_init lab-flower
[[ -d /run/vm ]] || skip "only in the VM: tests/vm/run $LAB_NAME"
ip netns attach "$(ns sw)" 1
routes_packets sw
ipr sw link add red type vrf table 100
ipr sw link set red up
for number in 0 1; do
    host=a$number port=port$number
    ip netns add "$(ns "$host")"
    routes_packets "$host"
    link sw "$port" "02:00:00:00:02:0$number" "$host" eth0 "02:00:00:00:03:0$number"
    ipr sw link set "$port" master red
    ipr sw addr add "10.60.$number.1/24" dev "$port"
    ipr sw addr add "2001:db8:6$number::1/64" dev "$port"
    ipr "$host" addr add "10.60.$number.2/24" dev eth0
    ipr "$host" addr add "2001:db8:6$number::2/64" dev eth0
    ipr "$host" route add default via "10.60.$number.1"
    ipr "$host" -6 route add default via "2001:db8:6$number::1"
    alias_of "$host" "10.60.$number.2" "2001:db8:6$number::2"
done
both() { hops_to a0 a1 && hops_to a0 a1 6; }
wait_until 10 'the kernel routes between them' both

daemon_alone $'[offload]\nmode = "skip_hw"\nports = ["port*"]'
# rule PORT ADDRESS: in software, for that destination.
rule() { tc filter show dev "$1" ingress | grep -A 3 "dst_ip $2\$" | grep -q skip_hw; }
for family in 4 6; do
    declare -n address=ADDRESS$family
    wait_until 20 "IPv$family: a rule there" rule port0 "${address[a1]}"
    wait_until 20 'and back' rule port1 "${address[a0]}"
done

section 'Forwarded by flower'
by_rules() {
    local before
    before=$(cpu_forwarded)
    check "$@"
    check 'the kernel forwarded none of it' test "$(cpu_forwarded)" = "$before"
}
by_rules 'there and back' hops_to a0 a1
by_rules 'and IPv6' hops_to a0 a1 6
# The rules of the other host, at the other port: counted in software and nowhere else.
counted() {
    offload sw show offload 10.60.1.2/32 --json |
        jq -e 'length > 0 and ([.[].packets] | add) >= 4 and all(.[]; .hardware_packets == 0)'
}
wait_until 20 'counted in software' counted
check 'an expiring packet is answered by the kernel' hears a0 'From 10.60.0.1 .*Time to live exceeded' -t 1 10.60.1.2
check 'and one to the router itself' hears a0 ' ttl=64 ' 10.60.0.1
check 'and one to a host that is not there' hears a0 'Destination Host Unreachable' 10.60.1.77

section 'A firewall that rules would bypass'
# admits FAMILY...: the ports, to rules.
admits() {
    local families
    families=$(printf '%s\n' "$@" | jq -R . | jq -sc .)
    offload sw show ports --json |
        jq -e --argjson families "$families" 'map(select(.name | startswith("port"))) | length == 2 and all(.[]; .admits == $families)'
}
on sw nft 'add table ip lab { chain forward { type filter hook forward priority 0; policy drop; }; }'
wait_until 10 'no more IPv4 by rules' admits ipv6
named() { offload sw show ports | grep 'forward-filter (nftables chain ip lab forward)'; }
check 'show ports says what filters' named
lost() { ! hops_to a0 a1; }
check 'the firewall has it' lost
by_rules 'IPv6 goes on by rules' hops_to a0 a1 6
sed -i '/^mode/a ignore = ["forward-filter"]' "$LAB/sw/frr-offload.toml"
signal sw/frr-offload HUP
wait_until 10 'unless the operator says otherwise' admits ipv4 ipv6
sed -i '/^ignore/d' "$LAB/sw/frr-offload.toml"
signal sw/frr-offload HUP
wait_until 10 'and not any longer' admits ipv6
on sw nft delete table ip lab
wait_until 10 'IPv4 by rules again' admits ipv4 ipv6
wait_until 20 'with its rules' rule port0 "${ADDRESS4[a1]}"
by_rules 'which forward' hops_to a0 a1

section 'The end'
offload_stop sw
check 'the rules stay: they still forward' hops_to a0 a1
on sw frr-offload flush >/dev/null
none() { [[ -z $(tc filter show dev port0 ingress; tc filter show dev port1 ingress) ]]; }
check 'flush takes them' none
check 'and the kernel forwards again' hops_to a0 a1

lab_passed
