#!/usr/bin/env bash
# A prefix over two VFs, one of which asks for three times the traffic: flows spread over buckets of source addresses, in
# hardware. One VF goes: its buckets move, those of the other keep flowing, and not one of their packets is lost.
. "$(dirname "$0")/../lib.sh"

lab_init switch-ecmp
switch_steady h0 h1 h2
for host in h1 h2; do ipr "$host" addr add 10.77.0.1/24 dev lo; ipr "$host" addr add 2001:db8:77::1/64 dev lo; done
for number in {1..16}; do ipr h0 addr replace "10.1.0.$number/24" dev lo; done

# announce HOST BANDWIDTH: the shared prefix, with that link bandwidth.
announce() {
    local families=(ipv4 ipv6) networks=(10.77.0.0/24 2001:db8:77::/64) lines=() number
    for number in 0 1; do
        lines+=("address-family ${families[number]} unicast" "network ${networks[number]} route-map SHARE" exit-address-family)
    done
    frr_configure "$1" 'route-map SHARE permit 10' "set extcommunity bandwidth $2" exit "router bgp ${HOST_AS[$1]}" "${lines[@]}"
}
announce h1 1000
announce h2 3000
kernel_weights() { [[ $(weights sw 10.77.0.0/24) == "$1" ]] || { weights sw 10.77.0.0/24; return 1; }; }
wait_until 30 'the kernel has both, one to three' ours sw 10.77.0.0/24 'pf0vf1 pf0vf2'
say "weights: $(weights sw 10.77.0.0/24)"
wait_until 20 'a rule' has_rule pf0vf0 10.77.0.0/255.255.255.0
wait_until 20 'the rules stay as they are' rules_quiet

section 'Flows spread'
# Both without `on`: its mount namespace costs a second each in the VM, and this is asked for each source.
# echoes HOST: how many echo requests it has got.
echoes() {
    local snmp=/proc/${PID[$1/zebra]}/net/snmp
    # shellcheck disable=SC2016  # it is awk's
    awk '$1 == "Icmp:" && !names { for (i = 2; i <= NF; i++) if ($i == "InEchos") field = i; names = 1; next } $1 == "Icmp:" { print $field }' "$snmp"
}
echo_from() { nsenter --net="/run/netns/$(ns h0)" ping -n -q -c 1 -W 2 -I "$1" 10.77.0.1 >/dev/null; }
to_h1=() to_h2=()
spread() {
    local number before
    for number in {1..16}; do
        before=$(echoes h1)
        echo_from "10.1.0.$number" || { echo "no answer to 10.1.0.$number"; return 1; }
        if [[ $(echoes h1) -gt $before ]]; then to_h1+=("10.1.0.$number"); else to_h2+=("10.1.0.$number"); fi
    done
}
cpu=$(cpu_forwarded)
spread || fail 'every flow is answered'
ok "of 16 sources ${#to_h1[@]} go to h1 and ${#to_h2[@]} to h2"
check 'one to three' test "${#to_h1[@]}" = 4 -a "${#to_h2[@]}" = 12
check 'the CPU forwarded none of them' test "$(cpu_forwarded)" = "$cpu"

section 'One VF goes'
rule_texts pf0vf0 >"$LAB/before"
# Each sends a hundred a second.
for flow in stays:"${to_h2[0]}" moves:"${to_h1[0]}"; do
    spawn "h0/${flow%%:*}" / ping -n -D -i 0.01 -W 1 -I "${flow#*:}" 10.77.0.1
done
flow() { stream_flows stays h0 && stream_flows moves h0; }
wait_until 10 'packets flow' flow
cpu=$(cpu_forwarded)
ipr sw link set pf0vf1 down
wait_until 20 'the kernel has one' ours sw 10.77.0.0/24 pf0vf2
wait_until 20 'the flow that was on it goes on' flow
wait_until 20 'the rules stay as they are' rules_quiet
say "rules written at pf0vf0: $(rule_texts pf0vf0 | LC_ALL=C comm -3 "$LAB/before" - | wc -l), of $(wc -l <"$LAB/before")"
lost=$(stream_lost stays h0)
check 'of the flow on the other not one packet was lost' test "$lost" = 0
say "of the flow that moved: $(stream_lost moves h0 2>/dev/null) lost; the CPU forwarded $(($(cpu_forwarded) - cpu))"
to_h1=() to_h2=()
cpu=$(cpu_forwarded)
spread || fail 'every flow is answered'
check 'all sources go to h2, by hardware' test "${#to_h2[@]}" = 16 -a "$(cpu_forwarded)" = "$cpu"

section 'It comes back'
ipr sw link set pf0vf1 up
wait_until 60 'the kernel has both' ours sw 10.77.0.0/24 'pf0vf1 pf0vf2'
shared() {
    to_h1=() to_h2=()
    spread && echo "${#to_h1[@]}" && [[ ${#to_h1[@]} == 4 ]]
}
wait_until 20 'one to three again' shared

lab_passed
