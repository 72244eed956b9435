#!/usr/bin/env bash
# zebra counts a route as installed only when we say so (--asic-offload=notify_on_offload), and bgpd
# advertises none before (bgp suppress-fib-pending): r3 gets from r1 what forwards there, and loses it
# when it doesn't. Set-up `takeover`; feedback-beside runs the same beside zebra's own routes. FRR before
# 10.7 can't take answers in: there it is looked at that the daemon says so.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

SETUP=${FEEDBACK_SETUP:-takeover}
lab_init "feedback-$SETUP"
at_least() { [[ $(printf '%s\n' "$1" "$FRR_VERSION" | sort -V | head -n 1) == "$1" ]]; }
at_least 10 || [[ $SETUP == beside ]] || skip "FRR $FRR_VERSION has no -R; $SETUP needs 10 or later"
cp "$FRR_CONF/daemons.feedback" "$LAB/daemons"
[[ $SETUP == takeover ]] || sed -i 's/ -R 5000//' "$LAB/daemons"
sed 's/^router bgp .*/&\n bgp suppress-fib-pending/' "$FRR_CONF/leaf.conf" >"$LAB/leaf.conf"
three_routers "$LAB/daemons" "$LAB/leaf.conf"

# zebra_shows ROUTER PREFIX JQ: of the route that zebra has selected.
zebra_shows() {
    vtysh "$1" "show ip route $2 json" | jq -e "[.[][] | select(.protocol == \"bgp\")] | length > 0 and any($3)" ||
        { vtysh "$1" "show ip route $2 json"; return 1; }
}
shows_failure() { vtysh r1 'show ip route bgp' | grep "^B>o $1 "; }
bgp_has() { vtysh "$1" "show bgp ipv4 unicast $2 json" | jq -e '.paths | length > 0'; }
not_bgp_has() { ! bgp_has "$@"; }
gets() { wait_until 20 "r3 gets $1" bgp_has r3 "$1"; }
loses() { wait_until 20 "r3 has no $1 any more" not_bgp_has r3 "$1"; }
# explain ends with 1 where the news are bad.
told() { { offload r1 explain "$1" --json || true; } | jq -e --arg state "$2" 'any(.steps[]; .stage == "feedback" and .state == $state)'; }
# hearing WORD: who dialled is recognised, and what it makes of answers.
hearing() { offload r1 show status --json | jq -e --arg v "$FRR_VERSION" --arg w "$1" '.feedback | .zebra == $v and .hearing == $w'; }
# says N TEXT: so many events tell of zebra, and the last of them says this.
says() {
    offload r1 show events --json | jq -e --argjson n "$1" --arg text "$2" \
        '[.[] | select(.kind == "zebra-known")] | length == $n and (.[-1].text | contains($text))' || { offload r1 show events; return 1; }
}
replayed_again() { offload r1 show status --json | jq -e '.sources[0].resyncs >= 2'; }
no_word() { ! grep -i 'find route\|no table\|not a request' "$LAB/r1/run/frr/zebra.log"; }
# In one go zebra forgets the second when it is busy, and never dials again (seen with 10.3).
dial_anew() {
    frr_configure r1 'no fpm address'
    wait_until 20 'zebra has hung up' not synced r1
    frr_configure r1 'fpm address 127.0.0.1 port 2620'
}
announce() { ipr r2 addr add "${1%0/24}1/24" dev lan0; }
stands_in_the_way() { ipr r1 route "$1" blackhole "$2" proto kernel metric 10; }

section 'Nobody says that anything forwards'
wait_until 60 'r1 has the route of r2' bgp_has r1 10.20.1.0/24
wait_until 10 'zebra waits' zebra_shows r1 10.20.1.0/24 '.queued'
wait_until 20 'r3 has what r1 announces itself' bgp_has r3 10.10.1.0/24
never 'and nothing from behind it' bgp_has r3 10.20.1.0/24

if ! at_least 10.7; then
    section 'We do, in vain'
    if at_least 10; then word=dropped; else word=ignored; fi
    offload_start r1 "setup = \"$SETUP\""
    wait_until 20 'the daemon knows this zebra' hearing "$word"
    check 'and says what comes of it' says 1 'nothing is ever advertised'
    check 'in its log, too' grep -q 'nothing is ever advertised' "$LAB/r1/log/frr-offload"
    check 'and doctor says it once' finds r1 zebra-waits-for-answers 'nothing is ever advertised'
    wait_until 20 'everything is in place' steady
    never 'r3 does not get it' bgp_has r3 10.20.1.0/24
    dial_anew
    wait_until 20 'zebra dials anew' replayed_again
    check 'it is said once a zebra' says 1 'nothing is ever advertised'

    check "zebra's log has no word of our answers" no_word

    section 'zebra without that option'
    mends_daemons r1 zebra-waits-for-answers "$LAB/leaf.conf"
    wait_until 20 'the daemon knows this zebra too' says 2 'waits for its own kernel routes'
    wait_until 60 'r3 gets everything' bgp_converged
    check 'doctor says once that answers are ignored, and nothing else' finds r1 zebra-ignores-answers "can't take answers in"
    wait_until 20 'which is no fault' finds_nothing r1
    lab_passed
    exit
fi

section 'We do'
offload_start r1 "setup = \"$SETUP\""
gets 10.20.1.0/24
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'everything is in place' steady
check 'zebra knows' zebra_shows r1 10.20.1.0/24 '.offloaded == true'
check 'the daemon knows this zebra' hearing heeded
check 'and says so' says 1 'it waits for answers, and takes them in'
all_told() { offload r1 show status --json | jq -e '.feedback | .offloaded > 0 and .failed == 0 and .waiting == 0'; }
wait_until 10 'each route is answered' all_told
check 'doctor finds nothing' finds_nothing r1

section 'No route is advertised before it forwards'
signal r1/frr-offload STOP
announce 10.20.9.0/24
wait_until 20 'while we are stopped r1 learns a prefix' zebra_shows r1 10.20.9.0/24 '.queued'
never 'which is not in the kernel as ours' ours r1 10.20.9.0/24 'eth0 eth1'
never 'and r3 does not get it' bgp_has r3 10.20.9.0/24
signal r1/frr-offload CONT
gets 10.20.9.0/24
check 'the kernel has it' ours r1 10.20.9.0/24 'eth0 eth1'

section 'A next hop that does not answer'
# Not EUI-64, so that only neighbour discovery can know its MAC; nobody has it yet.
frr_configure r2 'ip prefix-list SEVEN permit 10.20.7.0/24' \
    'route-map OUT permit 10' 'match ip address prefix-list SEVEN' 'set ipv6 next-hop local fe80::dead:7' 'exit' \
    'route-map OUT permit 20' 'exit' \
    'router bgp 65002' 'address-family ipv4 unicast' 'neighbor FABRIC route-map OUT out'
announce 10.20.7.0/24
wait_until 20 'zebra is told that the route does not forward' zebra_shows r1 10.20.7.0/24 '.offloaded == false'
check 'explain says so' told 10.20.7.0/24 failed
check 'so does zebra' shows_failure 10.20.7.0/24
never 'r3 does not get it' bgp_has r3 10.20.7.0/24
for dev in eth0 eth1; do ipr r2 addr add fe80::dead:7/64 dev "$dev"; done
gets 10.20.7.0/24
check 'explain says so' told 10.20.7.0/24 offloaded
for dev in eth0 eth1; do
    ipr r2 addr del fe80::dead:7/64 dev "$dev"
    ipr r1 neigh replace fe80::dead:7 dev "$dev" nud failed
done
loses 10.20.7.0/24
for dev in eth0 eth1; do ipr r2 addr add fe80::dead:7/64 dev "$dev"; done
gets 10.20.7.0/24

if [[ $SETUP == takeover ]]; then
    # zebra would take a kernel route of the table main for its own best one in `beside`.
    section 'A route that is not ours stands in the way'
    stands_in_the_way add 10.20.8.0/24
    announce 10.20.8.0/24
    wait_until 20 'the kernel has a route that is not ours' shows r1 10.20.8.0/24 '.reason == "foreign-route"'
    wait_until 10 'zebra is told' zebra_shows r1 10.20.8.0/24 '.offloaded == false'
    check 'and explain says so' told 10.20.8.0/24 failed
    never 'r3 does not get it' bgp_has r3 10.20.8.0/24
    stands_in_the_way del 10.20.8.0/24
    gets 10.20.8.0/24
    check 'explain says so' told 10.20.8.0/24 offloaded
    stands_in_the_way replace 10.20.8.0/24
    loses 10.20.8.0/24
    stands_in_the_way del 10.20.8.0/24
    gets 10.20.8.0/24
fi

section 'A new version of a route, and a new connection'
frr_configure r2 'route-map LOCAL permit 20' 'set metric 77'
med() { vtysh r1 "show bgp ipv4 unicast 10.20.9.0/24 json" | jq -e 'any(.paths[]; .metric == 77)'; }
wait_until 20 'r1 learns another metric' med
wait_until 10 'zebra knows that it forwards' zebra_shows r1 10.20.9.0/24 '.offloaded == true'
check 'r3 has it' bgp_has r3 10.20.9.0/24
end r1/frr-offload
offload_revive r1
wait_until 20 'our daemon is back' synced r1
wait_until 20 'each route is answered again' all_told
check 'r3 has all' bgp_has r3 10.20.7.0/24

section 'zebra is not confused'
# Of each version of a route in zebra's table: who made it, whether it counts, and where it leads.
zebras_view() {
    vtysh r1 'show ip route json' 'show ipv6 route json' |
        jq -S '[.[][] | {prefix, protocol, selected, installed, offloaded, queued, nexthops: [.nexthops[] | {ip, interfaceName, fib, active}]}]'
}
own_next_hops() {
    vtysh r1 'show ip route 10.20.1.0/24 json' |
        jq -e '[.[][] | select(.selected) | .nexthops[] | select(.fib)] | length == 2 and all(.[]; .ip | startswith("fe80::"))'
}
# None of ours is taken for a kernel route, and each route of BGP is `B>*`: neither q, o nor t.
as_ever() {
    ! zebras_view | jq -e '.[] | select(.protocol == "kernel")' || return 1
    [[ $(vtysh r1 'show ip route bgp' 'show ipv6 route bgp' | grep -c '^B>\*') -gt 5 ]] &&
        ! vtysh r1 'show ip route bgp' 'show ipv6 route bgp' | grep '^B>[^*]'
}
# What it said, and what we said, so far.
on_the_wire() { offload r1 show status --json | jq -c '[.sources[0].frames, .feedback.sent, .feedback.failed_sent]'; }
updates_of_r3() { vtysh r3 'show bgp neighbors json' | jq '[.[].messageStats.updatesRecv] | add'; }
# stays BEFORE COMMAND...: it still prints that.
stays() {
    local before=$1 now
    shift
    now=$("$@")
    [[ $now == "$before" ]] || { diff <(echo "$before") <(echo "$now"); return 1; }
}
is_silent() { local before; before=$(on_the_wire) && sleep 2 && stays "$before" on_the_wire; }
check 'its route has the next hops of BGP' own_next_hops
wait_until 20 'as ever' bgp_converged
wait_until 20 'each of its routes is as it should be' as_ever
wait_until 20 'it says nothing more' is_silent
view=$(zebras_view) wire=$(on_the_wire) updates=$(updates_of_r3)
# What we write again under its eyes is none of its business.
ipr r1 route del 10.20.1.0/24 proto 1
ipr r1 -6 route del 2001:db8:20::/64 proto 1
offload r1 resync
wait_until 20 'what somebody took away is back' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 20 'everything is in place' all_installed r1
check 'that moved nothing in zebra' stays "$view" zebras_view
check 'on the wire neither it nor we said a word' stays "$wire" on_the_wire
check 'nor BGP' stays "$updates" updates_of_r3
dial_anew
wait_until 20 'zebra dials anew' replayed_again
wait_until 20 'each route is answered again' all_told
check 'it is said once a zebra what it is' says 1 'it waits for answers'
check 'zebra has what it had' stays "$view" zebras_view
check 'r3 heard nothing of it' stays "$updates" updates_of_r3
check 'traffic' reaches r3 10.20.9.1 10.30.1.1

if [[ $SETUP == takeover ]]; then
    # Beside zebra's own routes nothing would stop forwarding.
    section 'The daemon goes and takes its routes along'
    offload_stop r1
    offload_start r1 $'setup = "takeover"\nkernel.on_exit = "flush"'
    wait_until 20 'our daemon is back' synced r1
    wait_until 20 'each route is answered' all_told
    check 'r3 has all' bgp_has r3 10.20.9.0/24
    offload_stop r1
    loses 10.20.9.0/24
    loses 10.20.1.0/24
    offload_revive r1
    gets 10.20.1.0/24
    gets 10.20.9.0/24
fi

check "zebra's log has no word of our answers" no_word

lab_passed
