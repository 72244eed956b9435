#!/usr/bin/env bash
# The daemon dies and comes back under traffic: hardware forwards on, and what has not changed is not written. What others
# do to our rules is mended, theirs are left alone, and representors that go take nothing along but their rules.
. "$(dirname "$0")/../lib.sh"

lab_init switch-restart
switch_router
# Somebody's own filter, in the way of the first priority.
tc qdisc add dev pf0vf0 clsact
theirs() { tc filter "$1" dev pf0vf0 ingress protocol arp prio "$2" flower skip_sw src_mac 02:00:00:00:66:66 action drop; }
theirs add 1
switch_host h0 h1
switch_frr
offload_start sw 'setup = "takeover"'
wait_until 30 'BGP has converged' switch_converged
wait_until 20 'the replay is over' synced sw
wait_until 20 'a rule for each network' rules_for 2
wait_until 20 'the rules stay as they are' rules_quiet
left_alone() { tc filter show dev pf0vf0 ingress | grep -A 4 '^filter protocol arp pref 1 .* handle ' | grep -q 'src_mac 02:00:00:00:66:66'; }
check 'the filter of somebody else is there' left_alone

section 'kill -9, and again, under traffic'
stream_start there h0 10.1.1.1 10.1.0.1
stream_start back h1 2001:db8:10::1 2001:db8:11::1
flow() { stream_flows there h0 && stream_flows back h1; }
wait_until 10 'packets flow' flow
rule_texts >"$LAB/before"
cpu=$(cpu_forwarded)
kill_hard sw/frr-offload
check 'hardware forwards without us' flow
offload_revive sw
wait_until 30 'the replay is over' synced sw
wait_until 20 'the rules stay as they are' rules_quiet
sleep 3
check 'packets flow' flow
cpu=$(($(cpu_forwarded) - cpu))
for stream in 'there h0' 'back h1'; do
    # shellcheck disable=SC2086  # name and router
    lost=$(stream_lost $stream)
    say "$stream: $lost lost of $(sed -n 's/ packets transmitted.*//p' "$LAB/${stream#* }/log/${stream% *}")"
    check 'not one packet was lost' test "$lost" = 0
done
check "the CPU forwarded none ($cpu)" test "$cpu" = 0
gone=$(rules_gone "$LAB/before" | wc -l) all=$(wc -l <"$LAB/before")
check "under 1 % of the rules were written ($gone of $all)" test $((gone * 100)) -lt "$all"
check 'and none was added' test "$(rule_texts | wc -l)" = "$all"

section 'What others do to our rules'
# Without numbers, which a rule written anew has others of, and what only a rule that was used has.
texts() { rule_texts | grep -v ' protocol arp ' | sed 's/ index [0-9]*//g; s/ handle [^ ]*//; s/ used_hw_stats [a-z]*//g' | LC_ALL=C sort; }
texts >"$LAB/before"
same() { texts | diff - "$LAB/before"; }
read -r prio chain handle < <(rule_texts pf0vf0 |
    sed -n 's/.* pref \([0-9]*\) flower chain \([0-9]*\) handle \(0x[0-9a-f]*\) .*dst_ip 10.1.1.0\/24 .*/\1 \2 \3/p')
say "10.1.1.0/24: chain $chain prio $prio handle $handle"
tc filter del dev pf0vf0 ingress chain "$chain" protocol ip prio "$prio" handle "$handle" flower
restored() { has_rule pf0vf0 10.1.1.0/255.255.255.0; }
wait_until 20 'one rule deleted: it is back' restored
tc filter del dev pf0vf0 ingress chain "$chain" prio "$prio"
wait_until 20 'a priority deleted: it is back' restored
check 'and traffic goes through it' hops_to h0 h1
wait_until 20 'the rules are the same' same
theirs add 7
tc qdisc del dev pf0vf1 clsact
wait_until 30 'a qdisc deleted: it is back, with all rules' same
check 'the daemon says so' event qdisc-stolen pf0vf1
by_hardware 'and they forward' hops_to h1 h0
check 'the filter of somebody else is there' left_alone

section 'Rules of an earlier run that may forward no more'
no_rules() { local left; left=$(rule_texts "$@" | grep -c ' cookie 6672726f') || true; [[ $left == 0 ]] || { echo "$left"; return 1; }; }
never 'until now there are rules' no_rules
kill_hard sw/frr-offload
on sw nft 'add table inet lab { chain forward { type filter hook forward priority 0; policy drop; }; }'
offload_revive sw
wait_until 20 'a firewall came meanwhile: they are gone' no_rules
never 'nothing comes through it' hops_to h0 h1
on sw nft delete table inet lab
wait_until 30 'it is gone: a rule for each network' rules_for 2
kill_hard sw/frr-offload
# While zebra is silent nothing tells the daemon which of its routes are still right.
signal sw/zebra STOP
on sw nft 'add table ip lab { chain forward { type filter hook forward priority 0; policy drop; }; }'
offload_revive sw
# admitted PROTOCOL: rules by which packets come in.
admitted() { rule_texts | grep -c " protocol $1 .* dst_mac " || true; }
shut() { [[ $(admitted ip) == 0 && $(admitted ipv6) -gt 0 ]] || { rule_texts | grep dst_mac; return 1; }; }
wait_until 20 'a firewall for IPv4 alone, and zebra is silent: IPv4 is let in no more, IPv6 is' shut
never 'nothing comes through it' hops_to h0 h1
by_hardware 'IPv6 is forwarded as before' hops_to h0 h1 6
on sw nft delete table ip lab
signal sw/zebra CONT
# The rules of networks were there all the time.
open_again() { [[ $(admitted ip) -gt 0 ]]; }
wait_until 30 'it is gone, and zebra has spoken: IPv4 is let in again' open_again
wait_until 20 'the rules stay as they are' rules_quiet
by_hardware 'and they forward' hops_to h0 h1
conf=$(cat "$LAB/sw/frr-offload.toml")
kill_hard sw/frr-offload
offload_start sw "$conf"$'\n''offload.mode = "off"'
check 'the offload is off: they are gone' no_rules
wait_until 20 'the replay is over' synced sw
by_cpu 'the kernel forwards' hops_to h0 h1
offload_stop sw
offload_start sw "$conf"
wait_until 30 'it is on again: a rule for each network' rules_for 2
kill_hard sw/frr-offload
offload_start sw "$conf"$'\n''offload.switches = ["platform/eswitch-sim.1"]'
wait_until 20 'another switch is to be used: they are gone from this one' no_rules p0 pf0vf0 pf0vf1 pf0vf2 pf0vf3
check 'and that is told' event old-rules
offload_stop sw
offload_start sw "$conf"
wait_until 30 'this one again: a rule for each network' rules_for 2

section 'The eswitch goes to legacy mode, and its ports with it'
devlink dev eswitch set platform/eswitch-sim.0 mode legacy
check 'no rule is left' test "$(rule_count)" = "$(grep -c '^p\(1\|f1\)' "$SWITCH/rules")"
check 'the daemon lives' offload sw show status

lab_passed
