#!/usr/bin/env bash
# Poor drivers, lying ones and two switches: what is not sure to be forwarded rightly stays with the kernel,
# and the daemon says why. Two plain hosts, no FRR.
. "$(dirname "$0")/../lib.sh"

lab_init switch-drivers
switch_router pfs=2 vfs=4
switch_lan h0 h1 other
both() { hops_to "$@" && hops_to "$@" 6; }
wait_until 10 'there is a way' both h0 h1
wait_until 10 'there is a way to the other switch' both h0 other

# again KNOB VALUE: a fresh daemon meets this driver.
again() {
    ! alive sw/frr-offload || kill_hard sw/frr-offload
    [[ -z ${clean:-} ]] || on sw frr-offload flush >/dev/null
    knob "$@"
    daemon_alone
    clean=yes
}

section 'A driver that can all of it'
daemon_alone
wait_until 20 'rules for both hosts' host_rules h0 h1
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
check 'the daemon says so' event driver-fit 'all that is needed'
layout() { [[ $(offload sw show status --json | jq -r .offload.layout) == "$1" ]] || { offload sw show status; return 1; }; }
check 'its rules are chained' layout chained

# Without FRR: zebra 10.3 dies of representors that come back.
section 'The eswitch goes to legacy mode, and comes back'
devlink dev eswitch set platform/eswitch-sim.0 mode legacy
check 'no rule is left' test "$(grep -c '^p\(0\|f0\)' "$SWITCH/rules")" = 0
legacy() { offload sw show ports --json | jq -e 'all(.name != "pf0vf0")' >/dev/null; }
wait_until 10 'the daemon has no such port' legacy
devlink dev eswitch set platform/eswitch-sim.0 mode switchdev
switch_gateway h0 h1
wait_until 10 'there is a way again' both h0 h1
wait_until 20 'rules for both hosts' host_rules h0 h1
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6

section 'Two switches'
check 'each has a block' sharing "$(block_of pf0vf0)" p0 pf0vf0 pf0vf1 pf0vf2 pf0vf3
check 'of its own' sharing "$(block_of pf1vf0)" p1 pf1vf0 pf1vf1 pf1vf2 pf1vf3
by_cpu 'from one to the other' hops_to h0 other
by_cpu 'and IPv6' hops_to h0 other 6

empty() { [[ $(rule_count) == 0 ]] || { rule_count; return 1; }; }
for lacks in trap pedit_ttl; do
    section "A driver without $lacks"
    again "no_$lacks" 1
    wait_until 20 'the daemon says so' event driver-unfit
    # The first meets the rules of the one before.
    wait_until 20 'nothing is in hardware' empty
    by_cpu 'the CPU forwards' hops_to h0 h1
    knob "no_$lacks" 0
done

# anew: the next daemon over the rules of the one before. Nobody tells it routes, so it is not to wait long for them.
anew() {
    kill_hard sw/frr-offload
    daemon_alone $'[fpm]\nstale_time = "0s"\n'"${1:-}"
}

# no_chains: every rule of the switch is in chain 0, and none leads elsewhere.
no_chains() { ! rules | grep -E 'chain=[1-9]|goto'; }
for lacks in no_goto max_chains; do
    section "A driver without goto: flat ($lacks)"
    [[ $lacks == no_goto ]] && with=1 without=0 || with=0 without=4294967295
    again "$lacks" "$with"
    wait_until 20 'rules for both hosts' host_rules h0 h1
    check 'the daemon says so' event driver-fit 'flat layout'
    check 'in all places' layout flat
    check 'there are no chains' no_chains
    by_hardware 'from host to host' hops_to h0 h1
    by_hardware 'and IPv6' hops_to h0 h1 6
    check 'a packet whose TTL ends is answered by the router' hears h0 'Time to live exceeded' -t 1 "${ADDRESS4[h1]}"
    # Rules stay when the daemon is killed; the next one finds them as it would write them.
    wait_until 10 'nothing is written' rules_quiet
    rule_texts >"$LAB/before"
    anew
    wait_until 20 'a new daemon has them' all_in_hw
    check 'as they stood' rules_kept "$LAB/before"
    # The same rules in chains, and back: the blocks are emptied between.
    knob "$lacks" "$without"
    anew
    wait_until 20 'with goto they are chained' layout chained
    wait_until 20 'rules for both hosts' host_rules h0 h1
    by_hardware 'from host to host' hops_to h0 h1
    knob "$lacks" "$with"
    anew
    wait_until 20 'and flat again' layout flat
    wait_until 20 'rules for both hosts' host_rules h0 h1
    wait_until 20 'without what was in chains' no_chains
    by_hardware 'from host to host' hops_to h0 h1
    knob "$lacks" "$without"
done

section 'Flat, as the operator wants it, with 16 priorities'
flat=$'[offload]\nlayout = "flat"'
knob max_prios 16
anew "$flat"
wait_until 20 'it knows' event driver-fit 'flat layout, the driver takes no more priorities'
wait_until 20 'rules for both hosts' host_rules h0 h1
wait_until 20 'without what was in chains' no_chains
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
knob max_prios 0


section 'A driver with 16 priorities'
again max_prios 16
wait_until 20 'rules for both hosts' host_rules h0 h1
check 'the daemon knows' event driver-fit 'no more priorities'
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
knob max_prios 0

section 'A driver that can not match all of IPv6'
again no_match_v6_any 1
wait_until 20 'rules for both hosts' host_rules h0 h1
by_hardware 'from host to host, IPv6' hops_to h0 h1 6
knob no_match_v6_any 0

# ports_anew: as a driver finds them that has just been loaded.
ports_anew() {
    local port
    kill_hard sw/frr-offload
    for port in p0 p1 pf{0,1}vf{0,1,2,3}; do tc qdisc del dev "$port" clsact; done
}

section 'A port that refuses every rule'
ports_anew
again fail_port "$(cat /sys/class/net/pf0vf1/ifindex)"
wait_until 20 'the daemon says so' event rule-refused pf0vf1
check 'from host to host, by whomever' hops_to h0 h1
check 'and back' hops_to h1 h0
check 'no rule is on it' test "$(grep -c '^pf0vf1 ' "$SWITCH/rules")" = 0
check 'it has left the block' test "$(block_of pf0vf1)" = null
check 'where the others have all rules' sharing "$(block_of p0)" p0 pf0vf0 pf0vf2 pf0vf3
knob fail_port 0

section 'A driver without shared blocks'
ports_anew
again no_shared_block 1
wait_until 20 'the daemon says so' event own-block 'no shared blocks: '
wait_until 20 'rules for both hosts' host_rules h0 h1
check 'no port shares a block' test "$(block_of p0) $(block_of pf0vf0) $(block_of pf0vf1)" = 'null null null'
says() { offload sw show ports --json | jq -r '.[].verdict' | grep -qF "$1"; }
check 'show ports says why' says 'no shared blocks ('
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and IPv6' hops_to h0 h1 6
wait_until 20 'every rule is in hardware, says the daemon' all_in_hw
knob no_shared_block 0

section 'One port that can not share a block'
# Bound in software without a word, it would keep all others from hardware.
ports_anew
again no_shared_port "$(cat /sys/class/net/pf0vf1/ifindex)"
wait_until 20 'the daemon says so' event own-block pf0vf1
wait_until 20 'rules for both hosts' host_rules h0 h1
check 'it has a block of its own' test "$(block_of pf0vf1)" = null
check 'the others share theirs' sharing "$(block_of p0)" p0 pf0vf0 pf0vf2 pf0vf3
by_hardware 'from host to host' hops_to h0 h1
by_hardware 'and back' hops_to h1 h0
check 'show ports says why' says 'a block of its own ('
# Now one that comes while rules are there: tc refuses it.
knob no_shared_port "$(cat /sys/class/net/pf0vf0/ifindex)"
tc qdisc del dev pf0vf0 clsact
wait_until 20 'another, later' event own-block pf0vf0
wait_until 20 'rules for both hosts' host_rules h0 h1
check 'the others share theirs' sharing "$(block_of p0)" p0 pf0vf2 pf0vf3
by_hardware 'from host to host' hops_to h0 h1
knob no_shared_port 0
# And one that takes the block, but not the rules in it.
knob fail_port "$(cat /sys/class/net/pf0vf2/ifindex)"
tc qdisc del dev pf0vf2 clsact
wait_until 20 'one that takes no rule' event own-block pf0vf2
check 'the others share theirs' sharing "$(block_of p0)" p0 pf0vf3
check 'from host to host, by whomever' hops_to h0 h1
knob fail_port 0

section 'Flush'
kill_hard sw/frr-offload
left() { on sw frr-offload flush | grep 'left: the clsact qdiscs of ' | grep -q pf0vf3; }
check 'it says what it leaves' left
wait_until 5 'no rule is left' empty

# No question finds this out: what it does to a packet only a packet tells. Such drivers are kept out by name
# (src/engine/probe.rs, truth). This one is not known, so its lie shows: the TTL stays.
section 'A driver that takes TTL changes and does not do them'
again ignore_actions 2
wait_until 20 'rules for both hosts' host_rules h0 h1
check 'the lie shows' hears h0 ' ttl=64 ' -I "${ADDRESS4[h0]}" "${ADDRESS4[h1]}"

lab_passed
