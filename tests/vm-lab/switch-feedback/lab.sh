#!/usr/bin/env bash
# feedback.mode = "hardware" with a table that is too small, 1000 prefixes and room for about 600: what is in hardware counts as
# offloaded, the rest as failed, and with FRR 10.7 (notify_on_offload, suppress-fib-pending) exactly what is in hardware is
# advertised; all of it when there is room for it.
. "$(dirname "$0")/../lib.sh"

lab_init switch-feedback
PREFIXES=${PREFIXES:-1000} ROOM=${ROOM:-600} FIRST=20
strict=$([[ $(printf '%s\n' 10.7 "$FRR_VERSION" | sort -V | head -n 1) != 10.7 ]] || echo yes)
if [[ -n $strict ]]; then
    cp -r "$FRR_CONF" "$LAB/frr-conf"
    FRR_CONF=$LAB/frr-conf
    cp "$FRR_CONF/daemons.feedback" "$FRR_CONF/daemons.takeover"
else
    say "FRR $FRR_VERSION does not read replies: only what it is told is looked at"
fi
OFFLOAD_CONF=$'[feedback]\nmode = "hardware"' switch_steady h0 h1
as_number=$(vtysh sw 'show running-config' | sed -n 's/^router bgp \([0-9]*\).*/\1/p')
[[ -z $strict ]] || frr_configure sw "router bgp $as_number" 'bgp suppress-fib-pending'
wait_until 20 'a rule for each network' rules_for 2

# in_hardware: the prefixes of which the daemon says so. h0_has: those that h0 got from the switch. All under 10.60.0.0/14.
in_hardware() { offload sw show routes --offload hardware --json | jq -r '.[].prefix' | grep '^10\.6[0-3]\.' | sort; }
h0_has() { ipr h0 route show | sed -n 's/^\(10\.6[0-3]\.[0-9]*\.0\/24\) .*/\1/p' | sort; }
in_hardware_are() { [[ $(in_hardware | wc -l) == "$1" ]]; }
advertised_is_in_hardware() {
    [[ -z $strict || $(in_hardware) == "$(h0_has)" ]] || { diff <(in_hardware) <(h0_has) | head; return 1; }
}
# What zebra shows: `*` forwards, `o` is an offload failure, and nothing else there is.
zebra_shows_it() {
    local shown
    shown=$(vtysh sw 'show ip route bgp' | sed -n 's/^B>\(.\) *\(10\.6[0-3]\.[0-9]*\.0\/24\) .*/\1 \2/p')
    [[ -z $strict || $(sed -n 's/^\* //p' <<<"$shown" | sort)$(sed '/^[*o] /d' <<<"$shown") == "$(in_hardware)" ]] ||
        { cut -d' ' -f1 <<<"$shown" | sort | uniq -c; return 1; }
}
# The counts are those of the routes themselves.
told_is_true() {
    local status routes
    status=$(offload sw show status --json | jq -c '.feedback | [.offloaded, .failed, .waiting]')
    routes=$(offload sw show routes --json |
        jq -c '[([.[] | select(.offload == "hardware")] | length), ([.[] | select(.offload != "hardware")] | length), 0]')
    [[ $status == "$routes" ]] || { echo "told: $status, routes: $routes"; return 1; }
}
announce() { # FROM TO
    local number lines=()
    for ((number = $1; number < $2; number++)); do lines+=("network 10.$((60 + number / 250)).$((number % 250)).0/24"); done
    frr_configure h1 'router bgp 65011' 'address-family ipv4 unicast' "${lines[@]}"
}
kernel_has() { [[ $(ipr sw route show proto 1 | grep -c '^10\.6[0-3]\.') == "$1" ]]; }
rules_rest() { local before; before=$(rule_count) && sleep 1 && [[ $(rule_count) == "$before" ]]; }
# A rule in a block that ports share counts once here, and once a port in the switch.
own_rules() { offload sw show status --json | jq .offload.rules; }
capacity() { # RULES: from now on
    printf '%s\n' 'setup = "takeover"' '[feedback]' 'mode = "hardware"' '[offload]' "capacity = $1" >"$LAB/sw/frr-offload.toml"
    signal sw/frr-offload HUP
}
all_settled() {
    wait_until 60 'the rules stay as they are' rules_rest
    wait_until 60 'zebra was told what is true' told_is_true
    wait_until 60 'exactly what is in hardware is advertised' advertised_is_in_hardware
    wait_until 30 'zebra shows the same' zebra_shows_it
}

wait_until 20 'the rules stay as they are' rules_rest
wait_until 20 'zebra was told what is true' told_is_true
base=$(own_rules)
announce 0 "$FIRST"
wait_until 30 'the kernel has the first routes' kernel_has "$FIRST"
all_settled
check 'each of them is in' test "$(in_hardware | wc -l)" = "$FIRST"
each=$((($(own_rules) - base) / FIRST))

section "$PREFIXES prefixes, $each rules each, and room for $ROOM"
capacity "$((base + ROOM * each))"
announce "$FIRST" "$PREFIXES"
wait_until 60 'the kernel has the routes' kernel_has "$PREFIXES"
all_settled
some=$(in_hardware | wc -l)
check "about $ROOM are in ($some of $PREFIXES)" test "$some" -ge $((ROOM * 9 / 10)) -a "$some" -le $((ROOM * 11 / 10))

section 'Room for all'
capacity '"auto"'
wait_until 60 'all are in' in_hardware_are "$PREFIXES"
all_settled
[[ -z $strict ]] || check 'all are advertised' test "$(h0_has | wc -l)" = "$PREFIXES"

section 'The daemon anew'
updates_of_h0() { vtysh h0 'show bgp neighbors json' | jq '[.[].messageStats.updatesRecv] | add'; }
updates=$(updates_of_h0)
offload_stop sw
offload_revive sw
wait_until 60 'all are in' in_hardware_are "$PREFIXES"
all_settled
check 'h0 heard nothing of it' test "$(updates_of_h0)" = "$updates"

lab_passed
