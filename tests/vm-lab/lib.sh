# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2153
# Labs on a switch with offload: real FRR and our daemon on a router whose ports are representors of
# the simulated switch (tests/eswitch-sim), and hosts on its VFs and behind its uplink.
#
# Sourced by bash in the VM (tests/vm/run), instead of tests/lab/lib.sh and checks.sh, which it reads.
# Owns: the topology below, and how to read the switch: counters, rules, knobs. Knows nothing about
# what a lab checks.
#
#     h0  vf0_0 ---- pf0vf0 +----+
#     h1  vf0_1 ---- pf0vf1 | sw | p0 ---- wire0  up
#     h2  vf0_2 ---- pf0vf2 +----+
#
# sw, AS 65000, is the router: the VM's own namespace, since representors, devlink and debugfs live
# there on real machines too. h0, h1, h2 (AS 65010 and on) and up (AS 65020) are namespaces with the
# far ends. No link has an IPv4 address; BGP is unnumbered (RFC 5549). Host N announces 10.1.N.0/24
# and 2001:db8:1N::/64, up 10.9.0.0/24, 2001:db8:90::/64 and a default route; .1 or ::1 of each
# answers. sw itself is 10.0.0.1 and 2001:db8::1.
#
# MACs: pf0vfN 02:00:00:00:00:0N, p0 ...:00:09; vf0_N 02:00:00:00:01:0N, wire0 ...:01:09.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../lab/lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$LAB_SOURCE/checks.sh"

SWITCH=/sys/kernel/debug/eswitch-sim
declare -A NETWORK4=([h0]=10.1.0.0/24 [h1]=10.1.1.0/24 [h2]=10.1.2.0/24 [up]=10.9.0.0/24)
declare -A NETWORK6=([h0]=2001:db8:10::/64 [h1]=2001:db8:11::/64 [h2]=2001:db8:12::/64 [up]=2001:db8:90::/64)
# What answers there.
declare -A ADDRESS4=([sw]=10.0.0.1 [h0]=10.1.0.1 [h1]=10.1.1.1 [h2]=10.1.2.1 [up]=10.9.0.1)
declare -A ADDRESS6=([sw]=2001:db8::1 [h0]=2001:db8:10::1 [h1]=2001:db8:11::1 [h2]=2001:db8:12::1 [up]=2001:db8:90::1)
# The port of the router that leads there, and the far end of it.
declare -A PORT=([h0]=pf0vf0 [h1]=pf0vf1 [h2]=pf0vf2 [h3]=pf0vf3 [other]=pf1vf0 [up]=p0)
declare -A FAR=([h0]=vf0_0 [h1]=vf0_1 [h2]=vf0_2 [h3]=vf0_3 [other]=vf1_0 [up]=wire0)
declare -A HOST_AS=([h0]=65010 [h1]=65011 [h2]=65012 [up]=65020)
# The last byte of their MACs, and what numbers their subnets in switch_lan.
declare -A NUMBER=([h0]=0 [h1]=1 [h2]=2 [h3]=3 [other]=4 [up]=9)
HOSTS=()
# The VRF that the router's port of a host is in, if it is not the default one: set before switch_steady.
declare -A VRF=()

# ---- the topology ----------------------------------------------------------------------------------

# switch_router [PARAMETER=VALUE...]: sw, on a fresh switch; the parameters are those of the module.
switch_router() {
    [[ -d /run/vm && -n ${ESWITCH_SIM:-} ]] || skip "only in the VM: tests/vm/run $LAB_NAME"
    ip netns attach "$(ns sw)" 1
    routes_packets sw
    # After the defaults of that namespace are set, which new ports take on.
    "$ROOT/tests/eswitch-sim/load" "$@"
}

# switch_link NAME...: a namespace with the far end of its port, both ends up.
switch_link() {
    local name
    for name in "$@"; do
        ip netns add "$(ns "$name")"
        routes_packets "$name"
        ipr sw link set "${PORT[$name]}" address "02:00:00:00:00:0${NUMBER[$name]}"
        ipr sw link set "${FAR[$name]}" netns "$(ns "$name")"
        ipr "$name" link set "${FAR[$name]}" address "02:00:00:00:01:0${NUMBER[$name]}"
        ipr sw link set "${PORT[$name]}" up
        ipr "$name" link set "${FAR[$name]}" up
        PEER["sw ${PORT[$name]}"]="$name ${FAR[$name]}"
        PEER["$name ${FAR[$name]}"]="sw ${PORT[$name]}"
    done
}

# switch_host NAME...: a router behind its port: h0, h1, h2 or up, with its network on lo.
switch_host() {
    local name
    switch_link "$@"
    for name in "$@"; do
        HOSTS+=("$name")
        ipr "$name" addr add "${ADDRESS4[$name]}/24" dev lo
        ipr "$name" addr add "${ADDRESS6[$name]}/64" dev lo
    done
    ipr sw addr replace "${ADDRESS4[sw]}/32" dev lo
    ipr sw addr replace "${ADDRESS6[sw]}/128" dev lo
}

# switch_lan NAME...: a plain host on a subnet of its port, 10.50.N.2/24 and 2001:db8:5N::2/64. The
# router is ...1 of it and their gateway.
switch_lan() {
    local name number
    switch_link "$@"
    switch_gateway "$@"
    for name in "$@"; do
        number=${NUMBER[$name]}
        ADDRESS4[$name]=10.50.$number.2 ADDRESS6[$name]=2001:db8:5$number::2
        ipr "$name" addr add "10.50.$number.2/24" dev "${FAR[$name]}"
        ipr "$name" addr add "2001:db8:5$number::2/64" dev "${FAR[$name]}"
        ipr "$name" route add default via "10.50.$number.1"
        ipr "$name" -6 route add default via "2001:db8:5$number::1"
    done
}

# switch_gateway NAME...: the router's side of these subnets.
switch_gateway() {
    local name number
    for name in "$@"; do
        number=${NUMBER[$name]}
        ipr sw link set "${PORT[$name]}" address "02:00:00:00:00:0$number" up
        ipr sw addr add "10.50.$number.1/24" dev "${PORT[$name]}"
        ipr sw addr add "2001:db8:5$number::1/64" dev "${PORT[$name]}"
    done
}

# bgp_conf ROUTER AS PORT...: unnumbered sessions over these ports; announces what it has on lo. In VRF $IN_VRF, if it is set.
bgp_conf() {
    local router=$1 as=$2 port
    shift 2
    cat <<CONF
frr defaults datacenter
hostname $router
service integrated-vtysh-config
fpm address 127.0.0.1 port 2620
router bgp $as${IN_VRF:+ vrf $IN_VRF}
 bgp router-id ${ADDRESS4[$router]}
 bgp bestpath as-path multipath-relax
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 neighbor PORTS peer-group
 neighbor PORTS remote-as external
 neighbor PORTS capability extended-nexthop
 neighbor PORTS timers 3 9
 neighbor PORTS timers connect 1
$(for port in "$@"; do echo " neighbor $port interface peer-group PORTS"; done)
 address-family ipv4 unicast
  neighbor PORTS activate
  network ${NETWORK4[$router]:-${ADDRESS4[$router]}/32}
  maximum-paths 64
$([[ $router != up ]] || echo '  neighbor PORTS default-originate')
 exit-address-family
 address-family ipv6 unicast
  neighbor PORTS activate
  network ${NETWORK6[$router]:-${ADDRESS6[$router]}/128}
  maximum-paths 64
$([[ $router != up ]] || echo '  neighbor PORTS default-originate')
 exit-address-family
exit
CONF
}

# switch_frr: FRR on all of them. The router has all of FRR, the hosts no more than BGP needs: each
# daemon costs a second or two in the VM. mgmtd is needed: without it zebra 10.3 tries a hundred times a second, for
# ever, to tell it of the first interface that changes (docs/evidence.md).
switch_frr() {
    local name vrf ports=() arguments=()
    printf '%s\n' bgpd=yes staticd=no 'mgmtd_options="-A 127.0.0.1"' 'zebra_options="-A 127.0.0.1 -s 90000000"' 'bgpd_options="-A 127.0.0.1"' >"$LAB/daemons.host"
    for name in "${HOSTS[@]}"; do
        [[ -n ${VRF[$name]:-} ]] || ports+=("${PORT[$name]}")
        bgp_conf "$name" "${HOST_AS[$name]}" "${FAR[$name]}" | sed '/^fpm /d' >"$LAB/$name.conf"
        arguments+=("$name" "$LAB/daemons.host" "$LAB/$name.conf")
    done
    bgp_conf sw 65000 "${ports[@]}" >"$LAB/sw.conf"
    for vrf in $(printf '%s\n' "${VRF[@]}" | sort -u); do
        ports=()
        for name in "${HOSTS[@]}"; do [[ ${VRF[$name]:-} != "$vrf" ]] || ports+=("${PORT[$name]}"); done
        IN_VRF=$vrf bgp_conf sw 65000 "${ports[@]}" | sed '1,/^fpm /d' >>"$LAB/sw.conf"
    done
    frr_start_all sw "$FRR_CONF/daemons.takeover" "$LAB/sw.conf" "${arguments[@]}"
}

# switch_steady [HOST...]: everything: router, hosts (default: all four), FRR, our daemon in
# takeover, and BGP has converged. $OFFLOAD_CONF is added to the daemon's configuration.
switch_steady() {
    [[ $# -gt 0 ]] || set -- h0 h1 h2 up
    [[ $(frr_major) -ge 10 ]] || skip "FRR $FRR_VERSION has no -R; takeover needs 10 or later"
    switch_router
    switch_host "$@"
    ! declare -F before_frr >/dev/null || before_frr
    switch_frr
    ok "FRR runs on sw and on $*"
    offload_start sw 'setup = "takeover"'$'\n'"${OFFLOAD_CONF:-}"
    wait_until 30 'BGP has converged' switch_converged
    wait_until 20 'the replay is over' synced sw
    wait_until 20 'the kernel has all routes' all_installed sw
}

# Everybody has the networks of all others in its VRF: the router by us, the hosts by themselves. One look at
# each table, as text: this is asked again and again.
switch_converged() {
    local name other table
    for name in sw "${HOSTS[@]}"; do
        table=$(ipr "$name" route show table all && ipr "$name" -6 route show table all) || return 1
        for other in "${HOSTS[@]}"; do
            [[ $other != "$name" && ($name == sw || ${VRF[$other]:-} == "${VRF[$name]:-}") ]] || continue
            [[ $table == *"${NETWORK4[$other]} "* && $table == *"${NETWORK6[$other]} "* ]] || { echo "$name lacks $other"; return 1; }
        done
    done
}

# What a failed lab shows besides.
dump_more() {
    [[ $1 == sw ]] || return 0
    local port
    printf '   -- the ports of the switch, and the rules in it\n'
    sed 's/^/      /' "$SWITCH/ports" "$SWITCH/rules"
    for port in "${PORT[@]}"; do dump sw tc -s filter show dev "$port" ingress; done
}

# ---- traffic -----------------------------------------------------------------------------------------

# alias_of NAME ADDRESS4 [ADDRESS6]: further addresses that hops_to may be given by a name.
alias_of() { ADDRESS4[$1]=$2 ADDRESS6[$1]=${3:-}; }

# hops_to HOST OTHER [4|6]: four pings from one loopback to the other come back, and the answer has
# passed one router: its TTL is one less than 64.
hops_to() {
    local from to output
    if [[ ${3:-4} == 6 ]]; then from=${ADDRESS6[$1]} to=${ADDRESS6[$2]}; else from=${ADDRESS4[$1]} to=${ADDRESS4[$2]}; fi
    output=$(on "$1" ping -n -c 4 -i 0.2 -W 2 -I "$from" "$to") || { echo "$output"; return 1; }
    [[ $(grep -c ' ttl=63 ' <<<"$output") == 4 ]] || { echo "$output"; return 1; }
}

# hears HOST PATTERN PING-ARGUMENTS...: what comes back to one ping, an answer or an ICMP error.
hears() {
    local host=$1 pattern=$2 output
    shift 2
    # It fails when the answer is an error.
    output=$(on "$host" ping -n -c 1 -W 5 "$@") || true
    grep -q -- "$pattern" <<<"$output" || { echo "$output"; return 1; }
}

# ---- the switch ----------------------------------------------------------------------------------------

# knob NAME VALUE: what the driver refuses, or takes and does not do (tests/eswitch-sim/README.md).
knob() { echo "$2" >"$SWITCH/$1"; }

# port_counter PORT NAME: of `ethtool -S`: slow_rx_packets, hw_forward_packets, offloaded_rules...
port_counter() { ethtool -S "$1" | awk -v name="$2:" '$1 == name { print $2 }'; }

# rule_count: rules in hardware. rules: they themselves, in the order of matching, with their counters.
rule_count() { cat "$SWITCH/n_rules"; }
rules() { cat "$SWITCH/rules"; }

# Packets that rules forwarded, all ports together.
hardware_forwarded() { tr ' ' '\n' <"$SWITCH/ports" | awk -F= '$1 == "hw_forward_packets" { sum += $2 } END { print sum + 0 }'; }
# Packets that the kernel of the router forwarded, both families. Not the slow-path counters of the
# ports: BGP, ARP and neighbour discovery take that way always.
cpu_forwarded() {
    awk '$1 == "Ip:" && !names { for (i = 2; i <= NF; i++) if ($i == "ForwDatagrams") field = i; names = 1; next }
        $1 == "Ip:" { sum += $field }
        $1 == "Ip6OutForwDatagrams" { sum += $2 }
        END { print sum + 0 }' /proc/net/snmp /proc/net/snmp6
}

# rule_by_hand FROM TO [FLAG]: what is sent by one host to the IPv4 network of another is forwarded by a
# rule, as a router would: MACs, TTL, checksum. With tc; FLAG is skip_sw by default.
rule_by_hand() {
    tc qdisc replace dev "${PORT[$1]}" clsact
    tc filter add dev "${PORT[$1]}" ingress protocol ip prio 1 flower "${3-skip_sw}" dst_ip "${NETWORK4[$2]}" \
        action pedit ex munge eth dst set "$(mac "$2" "${FAR[$2]}")" munge eth src set "$(mac sw "${PORT[$2]}")" munge ip ttl dec \
        pipe csum ip pipe mirred egress redirect dev "${PORT[$2]}"
}

# by_cpu 'what' COMMAND...: it succeeds, the kernel forwarded its packets, and no rule did.
# by_hardware: rules forwarded them, and the kernel not one.
by_cpu() { carried cpu "$@"; }
by_hardware() { carried hardware "$@"; }
carried() {
    local by=$1 what=$2 cpu hardware
    shift 2
    cpu=$(cpu_forwarded) hardware=$(hardware_forwarded)
    check "$what" "$@"
    cpu=$(($(cpu_forwarded) - cpu)) hardware=$(($(hardware_forwarded) - hardware))
    if [[ $by == cpu ]]; then
        check "by the CPU: it forwarded $cpu packets, the rules $hardware" test "$cpu" -gt 0 -a "$hardware" = 0
    else
        check "by the hardware: the rules forwarded $hardware packets, the CPU $cpu" test "$hardware" -gt 0 -a "$cpu" = 0
    fi
}

# rules_for N: rules are in hardware for so many IPv4 networks of the hosts, at every port of theirs.
rules_for() {
    local name port found=0
    for name in "${HOSTS[@]}"; do
        for port in "${HOSTS[@]}"; do
            grep -q "^${PORT[$port]} .* dst=${NETWORK4[$name]%/*}/255.255.255.0 " "$SWITCH/rules" || continue 2
        done
        found=$((found + 1))
    done
    [[ $found == "$1" ]] || { echo "$found"; return 1; }
}

# has_rule PORT ADDRESS[/MASK]: one for that destination; MASK as an address, by default of a whole one.
has_rule() {
    local to=$2 all=255.255.255.255
    [[ $to != *:* ]] || all=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    [[ $to == */* ]] || to+=/$all
    grep -q "^$1 .* dst=$to " "$SWITCH/rules"
}
# host_rules NAME...: every other one of these ports has rules for these hosts, both families.
host_rules() {
    local name port
    for name in "$@"; do
        for port in "$@"; do
            [[ $port != "$name" ]] || continue
            if ! has_rule "${PORT[$port]}" "${ADDRESS4[$name]}" || ! has_rule "${PORT[$port]}" "${ADDRESS6[$name]}"; then
                echo "${PORT[$port]} lacks $name"
                return 1
            fi
        done
    done
}

# rule_texts [PORT...]: rules as tc shows them, one a line, without counters, sorted. The kernel numbers the
# actions of a rule that is written anew, so a line that stays is a rule that nobody has written.
rule_texts() {
    local port ports=("$@")
    [[ $# -gt 0 ]] || mapfile -t ports < <(cut -d' ' -f1 "$SWITCH/rules" | uniq)
    for port in "${ports[@]}"; do
        tc filter show dev "$port" ingress | awk -v port="$port" '
            function say() { if (line ~ / handle /) print port, line }
            /^filter / { say(); line = $0; next }
            { sub(/^[ \t]+/, " "); line = line $0 }
            END { say() }'
    done | LC_ALL=C sort
}
# rules_gone FILE: those of an earlier rule_texts that do not stand there any more, or were written anew.
rules_gone() { rule_texts | LC_ALL=C comm -23 "$1" -; }
# rules_kept FILE: all of them stand as they stood.
rules_kept() {
    local gone
    gone=$(rules_gone "$1")
    echo "$gone"
    [[ -z $gone ]]
}
# rules_quiet: nothing is written for a while.
rules_quiet() { rule_texts >"$LAB/quiet" && sleep 0.7 && rule_texts | cmp -s "$LAB/quiet" -; }

# event WORD [TEXT]: the daemon has told so.
event() { offload sw show events | grep -F " $1 " | grep -qF -- "${2:-}" || { offload sw show events; return 1; }; }

# daemon_alone [TOML]: our daemon with nobody to tell it routes, from which hosts of connected subnets remain.
daemon_alone() { offload_start sw 'setup = "observe"'$'\n'"${1:-}"; }

# block_of PORT: the shared block that its qdisc is bound to, or null.
block_of() { offload sw show ports --json | jq -r --arg port "$1" '.[] | select(.name == $port) | .block'; }
# sharing BLOCK PORT...: these ports and no others are bound to it, every rule of it is in hardware at each of
# them, and there are some.
sharing() {
    local block=$1 bound counts
    shift
    bound=$(tc qdisc show | sed -n "s/^qdisc clsact .* dev \([^ ]*\) .* ingress_block $block .*/\1/p" | LC_ALL=C sort | xargs)
    counts=$(tc filter show block "$block" | grep -o 'in_hw_count [0-9]*' | sort -u | xargs)
    [[ $bound == "$(printf '%s\n' "$@" | LC_ALL=C sort | xargs)" && $counts == "in_hw_count $#" ]] || { echo "$bound: $counts"; return 1; }
}

# all_in_hw: the daemon says that every rule of its is in hardware, and there are some.
all_in_hw() {
    local status
    status=$(offload sw show status --json) || return 1
    [[ $(jq '.offload | .rules > 0 and .rules == .in_hw' <<<"$status") == true ]] || { echo "$status"; return 1; }
}
