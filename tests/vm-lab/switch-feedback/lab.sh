#!/usr/bin/env bash
# feedback.mode = "hardware" with a table that is too small: what is in hardware counts as offloaded, the rest as failed, and
# with FRR 10.7 (notify_on_offload, suppress-fib-pending) exactly what is in hardware is advertised.
. "$(dirname "$0")/../lib.sh"

lab_init switch-feedback
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
wait_until 20 'the rules stay as they are' rules_quiet

# in_hardware: the prefixes of which the daemon says so. h0_has: those that h0 got from the switch.
in_hardware() { offload sw show routes --offload hardware --json | jq -r '.[].prefix' | grep '^10\.60\.' | sort; }
h0_has() { ipr h0 route show | sed -n 's/^\(10\.60\.[0-9]*\.0\/24\) .*/\1/p' | sort; }
advertised_is_in_hardware() {
    [[ -z $strict || $(in_hardware) == "$(h0_has)" ]] || { diff <(in_hardware) <(h0_has); return 1; }
}
# The counts are those of the routes themselves.
told_is_true() {
    local status routes
    status=$(offload sw show status --json | jq -c '.feedback | [.offloaded, .failed, .waiting]')
    routes=$(offload sw show routes --json |
        jq -c '[([.[] | select(.offload == "hardware")] | length), ([.[] | select(.offload != "hardware")] | length), 0]')
    [[ $status == "$routes" ]] || { echo "told: $status, routes: $routes"; return 1; }
}
announce() {
    local number lines=()
    for ((number = $1; number <= $2; number++)); do lines+=("network 10.60.$number.0/24"); done
    frr_configure h1 'router bgp 65011' 'address-family ipv4 unicast' "${lines[@]}"
}
kernel_has() { [[ $(ipr sw route show proto 1 | grep -c '^10\.60\.') == "$1" ]]; }
ipr h1 addr add 10.60.1.1/16 dev lo
for number in {1..40}; do ipr h1 addr add "10.60.$number.1/24" dev lo; done

wait_until 20 'zebra was told what is true' told_is_true
knob max_rules "$(($(rule_count) + 45))"
announce 1 40
wait_until 30 'the kernel has the routes' kernel_has 40
wait_until 30 'the switch is full' event rule-refused 'No space left'
wait_until 30 'the rules stay as they are' rules_quiet
wait_until 20 'zebra was told what is true' told_is_true
some=$(in_hardware | wc -l)
check "some are in ($some of 40)" test "$some" -ge 6 -a "$some" -lt 40
wait_until 20 'exactly these are advertised' advertised_is_in_hardware

lab_passed
