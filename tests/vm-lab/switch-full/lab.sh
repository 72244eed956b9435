#!/usr/bin/env bash
# A table that is full is a state: what is in stays in, the rest is forwarded by the CPU and marked, and when there is room
# again it goes in. Refusals and a slow firmware hurt nobody.
. "$(dirname "$0")/../lib.sh"

lab_init switch-full
# The knob counts the rules of both switches, and the other one has none of what may go.
OFFLOAD_CONF='offload.switches = ["platform/eswitch-sim.0"]' switch_steady h0 h1
wait_until 20 'a rule for each network' rules_for 2
wait_until 20 'the rules stay as they are' rules_quiet

# announce FROM TO: h1 has 10.60.N.0/24 for these N. withdraw FROM TO: no more.
announce() { each '' "$@"; }
withdraw() { each 'no ' "$@"; }
each() {
    local number lines=()
    for ((number = $2; number <= $3; number++)); do lines+=("$1network 10.60.$number.0/24"); done
    frr_configure h1 'router bgp 65011' 'address-family ipv4 unicast' "${lines[@]}"
}
# rules_of PREFIX-START: how many of those prefixes have a rule at pf0vf0, which is where h0 sends.
announced() { grep -c '^pf0vf0 .* dst=10\.60\..*/255\.255\.255\.0 ' "$SWITCH/rules" || true; }
all_in() { [[ $(announced) == "$1" ]] || { announced; return 1; }; }
kernel_has() { [[ $(ipr sw route show proto 1 | grep -c '^10\.60\.') == "$1" ]]; }
ipr h1 addr add 10.60.1.1/16 dev lo
for number in 1 30; do ipr h1 addr replace "10.60.$number.1/16" dev lo; alias_of "n$number" "10.60.$number.1"; done

section 'Slow firmware, and some refusals'
knob insert_delay_us 20000
knob fail_errno 12
knob fail_count 5
announce 1 8
wait_until 30 'the kernel has the routes' kernel_has 8
check 'the daemon answers meanwhile' offload sw show status
wait_until 60 'all are in hardware' all_in 8
knob insert_delay_us 0
by_hardware 'and used' hops_to h0 n1

section 'Full'
wait_until 20 'the rules stay as they are' rules_quiet
full=$(($(rule_count) + 45))
knob max_rules "$full"
announce 9 40
wait_until 30 'the kernel has the routes' kernel_has 40
wait_until 30 'the daemon says so' event rule-refused 'No space left'
wait_until 30 'the rules stay as they are' rules_quiet
some=$(announced)
# Two slots are kept free for changes from then on.
check "some are in ($some of 40; $(rule_count) of $full rules)" test "$some" -ge 6 -a "$some" -lt 40
check 'those that were in stay' has_rule pf0vf0 10.60.1.0/255.255.255.0
by_hardware 'and forward' hops_to h0 n1
marked() { offload sw show routes --reason table-full | grep -q '10\.60\.'; }
check 'the others are marked' marked
check 'and forwarded' hops_to h0 n30
for number in {9..40}; do has_rule pf0vf0 "10.60.$number.0/255.255.255.0" || break; done
ipr h1 addr replace "10.60.$number.1/16" dev lo
alias_of out "10.60.$number.1"
slow=$(cpu_forwarded)
check "10.60.$number.0/24, which is not in" hops_to h0 out
check 'by the CPU' test "$(cpu_forwarded)" -ge $((slow + 4))

# says TEXT COMMAND...: of the command line.
says() {
    local text=$1 output
    shift
    output=$(offload sw "$@" 2>&1) || true
    [[ $output == *"$text"* ]] || { echo "$output"; return 1; }
}
waiting() { offload sw show offload --summary --json | jq '[.rooms[].waiting] | add'; }
check "who waits is counted ($(waiting))" test "$(waiting)" -ge 1
check 'and shown with the room' says 'wait for room' show offload --summary
check 'explain says why' says 'the hardware table is full' explain "10.60.$number.1"

section 'What is in stays in, but for what must be in'
rule_texts >"$LAB/before"
withdraw "$number" "$number"
wait_until 20 'one that waited goes' kernel_has 39
announce "$number" "$number"
wait_until 20 'and comes back' kernel_has 40
wait_until 20 'the rules stay as they are' rules_quiet
check 'no rule was touched for it' rules_kept "$LAB/before"
# Own addresses are exceptions, which nothing goes without: two rules each, for what goes there and what says that it comes from
# there. So many that there is room for them when others leave.
for last in {1..6}; do ipr sw addr add "10.99.0.$last/32" dev lo; done
has_exceptions() { for last in {1..6}; do has_rule pf0vf0 "10.99.0.$last" || { echo "$last"; return 1; }; done; }
wait_until 30 'own addresses are in' has_exceptions
check 'for them others left, and that is told' event table-full 'left hardware'
check 'no refusal was needed' test "$(rule_count)" -le "$full"
check 'what left is forwarded all the same' hops_to h0 n30
for last in {1..6}; do ipr sw addr del "10.99.0.$last/32" dev lo; done
back() { [[ $(announced) -ge $some ]] || { announced; return 1; }; }
wait_until 30 'they come back when the addresses are gone' back

section 'Room again'
withdraw 1 20
wait_until 30 'the kernel has 20 less' kernel_has 20
waits_for_less() { [[ $(announced) -gt 0 ]] && ! has_rule pf0vf0 10.60.1.0/255.255.255.0; }
wait_until 20 'their rules are gone' waits_for_less
wait_until 20 'the rules stay as they are' rules_quiet
some=$(announced)
say "$some of 20 are in"
announce 41 90
wait_until 30 'the kernel has 50 more' kernel_has 70
wait_until 20 'the rules stay as they are' rules_quiet
some=$(announced)
say "$some of 70 are in"
knob max_rules 0
# A tenth more is tried once a minute.
more() { [[ $(announced) -gt $some ]] || { announced; return 1; }; }
wait_until 60 'and in time more are in' more

lab_passed
