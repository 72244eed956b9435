#!/usr/bin/env bash
# `doctor` on a switch: what keeps rules out of hardware or makes them dear is found, and the command that doctor
# gives mends it. Three plain hosts, no FRR, so that its absence alone is an error. (Where all is well with FRR,
# switch-bgp finds nothing; filter rules that a driver refuses are in switch-acl.)
. "$(dirname "$0")/../lib.sh"

lab_init switch-doctor
# To enter another tree costs a second in a VM, and there is no FRR in it that would answer.
rm -f "$LAB/bin/vtysh"
switch_router
switch_lan h0 h1 h2
both() { hops_to "$@" && hops_to "$@" 6; }
wait_until 10 'there is a way' both h0 h1
daemon_alone
wait_until 20 'rules for hosts' host_rules h0 h1
well() { findings sw | jq -e 'all(.[]; .id == "zebra-not-connected" or .severity == "info")' >/dev/null || { offload sw doctor; return 1; }; }
wait_until 10 'nothing is found but that zebra is missing' well

section 'Others at the ports'
ipr sw link set pf0vf0 mtu 9000
wait_until 10 'a larger MTU than that of other ports' finds sw mtu-mismatch 'below that of pf0vf0 (9000)'
wait_until 10 'hosts there are left to the CPU' not host_rules h0 h1
mends sw mtu-mismatch
wait_until 20 'rules for hosts' host_rules h0 h1
block=$(block_of pf0vf0)
tc filter add block "$block" protocol ip prio 4000 flower skip_hw dst_ip 203.0.113.1 action drop
wait_until 20 'a software rule beside those of hardware' finds sw mixed-block "block $block: 1 rule of others"
mends sw mixed-block
for time in once twice; do
    tc qdisc del dev pf0vf1 clsact
    wait_until 20 "a stolen qdisc is put back, $time" host_rules h0 h1
done
check 'who steals is told of' finds sw qdisc-stolen 'pf0vf1: somebody deleted its clsact qdisc 2 times'

section 'What the kernel would do otherwise'
sysctl -qw net.ipv4.conf.pf0vf1.forwarding=0
wait_until 10 'a port that does not forward' finds sw not-forwarding 'pf0vf1: '
mends sw not-forwarding
ip link add br0 type bridge
ipr sw link set pf0vf2 master br0
wait_until 10 'a port of a bridge' finds sw port-enslaved 'pf0vf2 belongs to bridge br0'
mends sw port-enslaved

section 'The eswitch in legacy mode'
devlink dev eswitch set platform/eswitch-sim.0 mode legacy
wait_until 10 'it is told' finds sw eswitch-legacy 'platform/eswitch-sim.0'
mends sw eswitch-legacy
switch_gateway h0 h1 h2

section 'Drivers'
kill_hard sw/frr-offload
on sw frr-offload flush >/dev/null
knob no_trap 1
daemon_alone
wait_until 20 'one that can not do what routes need' finds sw driver-unfit 'no trap'
kill_hard sw/frr-offload
knob no_trap 0
knob no_goto 1
daemon_alone
wait_until 20 'one that lacks something' finds sw driver-limits 'flat layout'

lab_passed
