#!/usr/bin/env bash
# Filter rules in hardware, before all routes: what they drop never meets the CPU, what they permit is forwarded as ever. A list
# that changes under traffic lets nothing through, and where a drop is refused hardware forwards nothing.
. "$(dirname "$0")/../lib.sh"

lab_init switch-acl

# rule NAME FAMILY ACTION MATCH [KEY=VALUE...]: a rule of the configuration.
rule() {
    printf '[[acl]]\nname = "%s"\nfamily = "%s"\naction = "%s"\nmatch = { %s }\n' "$1" "$2" "$3" "$4"
    shift 4
    [[ $# == 0 ]] || printf '%s\n' "$@"
}
to_h2=$(rule to-h2 ipv4 permit 'proto = "tcp", dst = "10.1.2.0/24", dst_port = 23')
no_telnet=$(rule no-telnet ipv4 drop 'proto = "tcp", dst_port = "22-23"')
watch=$(rule watch ipv4 trap 'proto = "tcp", dst_port = 53')
no_discard=$(rule no-discard ipv4 drop 'proto = "udp", dst_port = 9')
# shellcheck disable=SC2034  # read by switch_steady
OFFLOAD_CONF="$to_h2
$no_telnet
$watch
$no_discard"
switch_steady h0 h1 h2

# filters LINE...: the daemon reads these rules from its configuration while it runs.
filters() {
    printf '%s\n' 'setup = "takeover"' "$@" >"$LAB/sw/frr-offload.toml"
    signal sw/frr-offload HUP
}
# acl NAME EXPRESSION: jq says yes to what the daemon says of that rule.
acl() {
    local json
    json=$(offload sw show acl --json) || return 1
    jq -e --arg name "$1" ".[] | select(.name == \$name) | $2" <<<"$json" >/dev/null || { jq -c . <<<"$json"; return 1; }
}
in_hardware() { acl "$1" '.state == "hardware" and (.blocks | all(.in_hw_count > 0))'; }
# knocks FROM ADDRESS PORT: a TCP connection is refused there, so somebody is there.
knocks() {
    local output
    output=$(on "$1" timeout 15 bash -c ": </dev/tcp/$2/$3" 2>&1) || true
    [[ $output == *refused* ]] || { echo "$output"; return 1; }
}
# silent FROM ADDRESS PORT: nobody answers.
silent() {
    local output code=0
    output=$(on "$1" timeout 2 bash -c ": </dev/tcp/$2/$3" 2>&1) || code=$?
    [[ $code == 124 ]] || { echo "$code $output"; return 1; }
}
dropped_at() { port_counter "$1" hw_drop_packets; }
# dropped 'what' PORT COMMAND...: it succeeds, the hardware dropped packets of that port, and nobody forwarded any.
dropped() {
    local what=$1 port=$2 cpu hardware drops
    shift 2
    cpu=$(cpu_forwarded) hardware=$(hardware_forwarded) drops=$(dropped_at "$port")
    check "$what" "$@"
    cpu=$(($(cpu_forwarded) - cpu)) hardware=$(($(hardware_forwarded) - hardware)) drops=$(($(dropped_at "$port") - drops))
    check "in hardware: it dropped $drops packets, forwarded $hardware, the CPU $cpu" test "$drops" -gt 0 -a "$hardware$cpu" = 00
}

section 'In hardware'
wait_until 20 'a rule for each network' rules_for 3
for name in to-h2 no-telnet watch no-discard; do wait_until 10 "$name" in_hardware "$name"; done
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'what no rule is about' hops_to h0 h1
by_hardware 'another port' knocks h0 10.1.1.1 24
dropped 'telnet is dropped' pf0vf0 silent h0 10.1.1.1 23
dropped 'and the first of the range' pf0vf0 silent h0 10.1.1.1 22
counted() { acl no-telnet '.hardware_packets > 0 and .packets == .hardware_packets'; }
wait_until 20 'the daemon has counted it, in hardware alone' counted
by_hardware 'a permit before it: forwarded' knocks h0 10.1.2.1 23
by_hardware 'IPv6 is not met by a rule for IPv4' knocks h0 2001:db8:11::1 23
dropped 'what is for the router itself is dropped too' pf0vf0 silent h0 10.0.0.1 23
cpu=$(cpu_forwarded)
check 'a trap: it is forwarded' knocks h0 10.1.1.1 53
check 'by the CPU' test "$(cpu_forwarded)" -gt "$cpu"

section 'Tagged packets'
ipr h0 link add link vf0_0 name tagged type vlan id 5
# Nothing but what is sent here.
on h0 sysctl -qw net.ipv6.conf.tagged.disable_ipv6=1
ipr h0 link set tagged up
ipr h0 addr add 10.77.0.2/24 dev tagged
ipr h0 neigh add 10.77.0.1 lladdr 02:00:00:00:00:00 dev tagged nud permanent
ipr h0 route add 10.1.1.1/32 via 10.77.0.1 dev tagged src 10.1.0.1
ipr sw link add link pf0vf0 name tagged type vlan id 5
ipr sw link set tagged up
is_port() { offload sw show ports --json | jq -e 'map(select(.name == "tagged"))[0].admits == ["ipv4", "ipv6"]' >/dev/null; }
wait_until 20 'their sub-interface is a port' is_port
wait_until 20 'the rules stay as they are' rules_quiet
# arrived: packets with that tag that the CPU has seen.
arrived() { cat /sys/class/net/tagged/statistics/rx_packets; }
before=$(arrived)
dropped 'telnet is dropped' pf0vf0 silent h0 10.1.1.1 23
by_hardware 'other packets arrive' knocks h0 10.1.1.1 24
check 'the CPU has seen none of it' test "$(arrived)" = "$before"
ipr sw link del tagged
ipr h0 link del tagged
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'without a tag again' hops_to h0 h1

section 'The list changes, while what it drops is sent all the time'
# heard ROUTER: packets that came for a port where nobody listens.
# shellcheck disable=SC2016  # fields of awk
heard() { on "$1" awk '$1 == "Udp:" && $3 ~ /^[0-9]+$/ { print $3 }' /proc/net/snmp; }
check 'what is not dropped is heard' on h0 bash -c 'echo >/dev/udp/10.1.1.1/10'
sleep 1
before=$(heard h1)
check "by h1 ($before)" test "$before" -gt 0
spawn h0/flood / bash -c 'while :; do echo >/dev/udp/10.1.1.1/9; done'
drops=$(dropped_at pf0vf0)
flooded() { [[ $(dropped_at pf0vf0) -gt $((drops + 20)) ]]; }
wait_until 10 'packets are dropped' flooded
rule_texts >"$LAB/before"
filters "$to_h2" "$no_telnet" "$(rule new ipv4 drop 'proto = "tcp", dst_port = 24')" "$watch" "$no_discard"
wait_until 20 'a rule more' in_hardware new
check 'the others were not written' rules_kept "$LAB/before"
dropped_new() { silent h0 10.1.1.1 24; }
check 'it drops' dropped_new
filters "$no_discard" "$watch" "$no_telnet" "$to_h2"
without() { ! acl new true && in_hardware no-discard && in_hardware to-h2; }
wait_until 20 'another order' without
wait_until 20 'the rules stay as they are' rules_quiet
never 'what is permitted behind a drop is dropped' knocks h0 10.1.2.1 23
filters "$(rule all-udp ipv4 drop 'proto = "udp"')"
wait_until 20 'another list that drops it' in_hardware all-udp
kill_hard sw/frr-offload
offload_start sw 'setup = "takeover"'$'\n'"$no_discard"
wait_until 30 'a restart with another one' in_hardware no-discard
wait_until 20 'the rules stay as they are' rules_quiet
drops=$(dropped_at pf0vf0)
wait_until 10 'packets are dropped to the end' flooded
check "h1 has not heard one of them ($(heard h1))" test "$(heard h1)" = "$before"
kill_hard h0/flood

section 'A drop that the driver refuses'
# The switch knows no ICMP types.
no_ping=$(rule no-ping ipv4 drop 'proto = "icmp", icmp_type = 8, in = "pf0vf0"')
filters "$no_ping" "$no_telnet"
wait_until 20 'is an error' acl no-ping '.state == "failed" and (.blocks[0].error | contains("not supported"))'
check 'and told' event acl-refused no-ping
admits_nothing() { offload sw show ports --json | jq -e 'map(select(.name == "pf0vf0"))[0].reasons | index("acl-incomplete")' >/dev/null; }
check 'the port says so' admits_nothing
check 'the route says so' shows sw 10.1.1.0/24 '.offload == "failed" and .reason == "acl-incomplete"'
by_cpu 'hardware forwards nothing there' hops_to h0 h1
dropped 'other drops are in hardware' pf0vf0 silent h0 10.1.1.1 23
filters "$no_telnet"
wait_until 20 'without it routes are in hardware' shows sw 10.1.1.0/24 '.offload == "hardware"'
by_hardware 'and forward' hops_to h0 h1
dropped 'and telnet is dropped' pf0vf0 silent h0 10.1.1.1 23

section 'In software, where hardware does not take it'
filters "$(rule no-ping ipv4 drop 'proto = "icmp", icmp_type = 8, in = "pf0vf0"' 'place = "any"')" "$no_telnet"
wait_until 30 'it is in software' acl no-ping '.state == "software" and (.blocks[0].error | contains("not supported"))'
check 'and told' event acl-in-software no-ping
in_software() { offload sw show ports --json | jq -e 'map(select(.name == "pf0vf0"))[0] | .admits == [] and (.reasons | index("acl-in-software")) and .block == null' >/dev/null; }
wait_until 20 'its port has a block of its own, and admits nothing' in_software
never 'it drops' hears h0 ' ttl=' -I 10.1.0.1 10.1.1.1
forwarded=$(port_counter pf0vf0 hw_forward_packets)
check 'other packets of that port arrive' knocks h0 10.1.1.1 24
check 'by the CPU' test "$(port_counter pf0vf0 hw_forward_packets)" = "$forwarded"
check 'telnet is dropped' silent h0 10.1.1.1 23
by_hardware 'other ports forward in hardware' hops_to h1 h2
dropped 'and drop there' pf0vf1 silent h1 10.1.2.1 23
mixed() { tc filter show dev pf0vf0 ingress | grep -q skip_sw; }
never 'hardware and software are never in one block' mixed
filters "$no_telnet"
wait_until 30 'without it routes are in hardware' shows sw 10.1.1.0/24 '.offload == "hardware"'
back() { offload sw show ports --json | jq -e 'map(select(.name == "pf0vf0"))[0].admits != []' >/dev/null; }
wait_until 20 'and the port admits' back
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'and forwards' hops_to h0 h1

section 'Where nothing is routed in hardware'
sysctl -qw net.ipv4.conf.all.rp_filter=1
strict() { offload sw show ports --json | jq -e 'map(select(.name == "pf0vf0"))[0] | .admits == ["ipv6"] and (.reasons | index("strict-rp-filter"))' >/dev/null; }
wait_until 20 'ports whose IPv4 packets the CPU must check' strict
by_cpu 'forward nothing' hops_to h0 h1
dropped 'and drop all the same' pf0vf0 silent h0 10.1.1.1 23
sysctl -qw net.ipv4.conf.all.rp_filter=0
kill_hard sw/frr-offload
knob no_pedit_ttl 1
offload_start sw 'setup = "takeover"'$'\n'"$to_h2"$'\n'"$no_telnet"
wait_until 20 'a driver that can not route' event driver-unfit
wait_until 20 'takes filter rules' in_hardware no-telnet
wait_until 20 'the rules stay as they are' rules_quiet
by_cpu 'the CPU forwards' hops_to h0 h1
dropped 'hardware drops' pf0vf0 silent h0 10.1.1.1 23
check 'and a permit before that is the CPU'"'"'s' knocks h0 10.1.2.1 23

lab_passed
