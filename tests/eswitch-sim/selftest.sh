#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Runs in the VM with the module loaded (two switches): each promise of README.md, one line each. Exit
# code 0: all hold. Arguments of tc are words, and many checks are functions called by name.
# shellcheck disable=SC2002,SC2015,SC2046,SC2086,SC2317
set -u
D=/sys/kernel/debug/eswitch-sim; bad=0 out=$(mktemp)
ck() { local l=$1; shift; if "$@" >"$out" 2>&1; then echo "ok   $l"; else echo "FAIL $l: $(head -3 "$out")"; bad=1; fi; }
no() { ! "$@"; }
F() { tc filter add dev "$@"; }
for n in 0 1 2; do ip netns add n$n; ip link set pf0vf$n up; ip link set vf0_$n netns n$n
  ip -n n$n link set vf0_$n address 02:00:00:00:00:1$n; ip -n n$n addr add 10.0.0.1$n/24 dev vf0_$n; ip -n n$n link set vf0_$n up; done
ip link set p0 up; ip netns add w; ip link set wire0 netns w; ip -n w addr add 10.0.0.99/24 dev wire0; ip -n w link set wire0 address 02:00:00:00:00:99; ip -n w link set wire0 up
for a in 0 1 2 w; do for b in 0 1 2; do [ $a = $b ] || { [ $a = w ] && i="w wire0" || i="n$a vf0_$a"; set -- $i; ip -n $1 neigh replace 10.0.0.1$b lladdr 02:00:00:00:00:1$b dev $2; }; done; done
for n in 0 1 2; do ip -n n$n neigh replace 10.0.0.99 lladdr 02:00:00:00:00:99 dev vf0_$n; done
P() { ip netns exec $1 ping -c 2 -i 0.2 -W 1 $2 | grep -q ' 0% packet loss'; }
for n in 0 1 2; do tc qdisc add dev pf0vf$n clsact; done; tc qdisc add dev p0 clsact
ck "nothing forwards without rules" no P n0 10.0.0.11
for n in 0 1 2; do F pf0vf$n ingress protocol ip prio 20 flower skip_sw dst_ip 10.0.0.11 action mirred egress redirect dev pf0vf1
  F pf0vf$n ingress protocol ip prio 20 flower skip_sw dst_ip 10.0.0.10 action mirred egress redirect dev pf0vf0
  F pf0vf$n ingress protocol ip prio 20 flower skip_sw dst_ip 10.0.0.99 action mirred egress redirect dev p0; done
F p0 ingress protocol ip prio 20 flower skip_sw dst_ip 10.0.0.10 action mirred egress redirect dev pf0vf0
ck "VF to VF by hardware" P n0 10.0.0.11
ck "VF to wire by the uplink representor" P n0 10.0.0.99
F pf0vf0 ingress protocol ip prio 10 flower skip_sw dst_ip 10.0.0.11/32 action drop
ck "a lower prio wins (drop)" no P n0 10.0.0.11
ck "its drops are counted" sh -c "tc -s filter show dev pf0vf0 ingress prio 10 | grep -E 'dropped [1-9]'"
tc filter del dev pf0vf0 ingress protocol ip prio 10; ck "gone with the filter" P n0 10.0.0.11
F pf0vf0 ingress protocol ip prio 5 flower skip_sw dst_ip 10.0.0.0/24 action goto chain 3
F pf0vf0 ingress chain 3 protocol ip prio 1 flower skip_sw dst_ip 10.0.0.11 action mirred egress redirect dev pf0vf1
ck "goto chain in hardware" P n0 10.0.0.11
ck "chain 3 counted" sh -c "tc -s filter show dev pf0vf0 ingress chain 3 | grep -E 'Sent hardware [1-9]'"
tc filter del dev pf0vf0 ingress protocol ip prio 5; tc filter del dev pf0vf0 ingress chain 3
ip -n n2 link add link vf0_2 name v5 type vlan id 5; ip -n n2 addr add 10.5.0.2/24 dev v5; ip -n n2 link set v5 up
ip -n n0 addr add 10.5.0.1/24 dev vf0_0; ip -n n0 neigh add 10.5.0.2 lladdr 02:00:00:00:00:12 dev vf0_0; ip -n n2 neigh add 10.5.0.1 lladdr 02:00:00:00:00:10 dev v5
F pf0vf0 ingress protocol ip prio 6 flower skip_sw dst_ip 10.5.0.2 action vlan push id 5 pipe mirred egress redirect dev pf0vf2
F pf0vf2 ingress protocol 802.1q prio 7 flower skip_sw vlan_id 5 vlan_ethtype ip dst_ip 10.5.0.1 action vlan pop pipe mirred egress redirect dev pf0vf0
ck "vlan push and pop" P n0 10.5.0.2
ip -n n0 addr add fd00::10/64 dev vf0_0 nodad; ip -n n1 addr add fd00::11/64 dev vf0_1 nodad
ip -n n0 neigh replace fd00::11 lladdr 02:00:00:00:00:11 dev vf0_0; ip -n n1 neigh replace fd00::10 lladdr 02:00:00:00:00:10 dev vf0_1
F pf0vf0 ingress protocol ipv6 prio 8 flower skip_sw dst_ip fd00::11 action pedit ex munge ip6 hoplimit dec pipe mirred egress redirect dev pf0vf1
F pf0vf1 ingress protocol ipv6 prio 8 flower skip_sw dst_ip fd00::10 action mirred egress redirect dev pf0vf0
ck "IPv6" P n0 fd00::11
ck "other eswitch is no target" no F pf0vf0 ingress protocol ip prio 9 flower skip_sw action mirred egress redirect dev pf1vf0
tc qdisc add dev pf1vf0 ingress_block 1 clsact; tc qdisc add dev pf1vf1 ingress_block 1 clsact
tc filter add block 1 protocol ip prio 1 flower skip_sw dst_ip 10.7.0.1 action drop
ck "shared block: in_hw_count 2" sh -c "tc filter show block 1 | grep 'in_hw_count 2'"
echo 1 >$D/fail_count; echo 5 >$D/fail_errno
ck "failure on demand (skip_sw)" no tc filter add block 1 protocol ip prio 1 flower skip_sw dst_ip 10.7.0.2 action drop
ck "and then no more" tc filter add block 1 protocol ip prio 1 flower skip_sw dst_ip 10.7.0.2 action drop
n=$(cat $D/n_rules); tc qdisc del dev pf1vf0 ingress_block 1 clsact; ck "unbinding a port takes its rules out" test $(cat $D/n_rules) -eq $((n-2))
# VLANs: n2 has v5, n0 gets v7, the host sub-interface r5 on n2's representor
ip link add link pf0vf2 name r5 type vlan id 5; ip addr add 10.5.0.9/24 dev r5; ip link set r5 up
ck "VLAN sub-interface of a representor (slow path)" ping -c 2 -i 0.2 -W 2 10.5.0.2
ip -n n0 link add link vf0_0 name v7 type vlan id 7; ip -n n0 addr add 10.6.0.1/24 dev v7; ip -n n0 link set v7 up; ip -n n2 addr add 10.6.0.2/24 dev v5
ip -n n0 neigh replace 10.6.0.2 lladdr 02:00:00:00:00:12 dev v7; ip -n n2 neigh replace 10.6.0.1 lladdr 02:00:00:00:00:10 dev v5
F pf0vf2 ingress protocol 802.1q prio 7 flower skip_sw vlan_id 5 vlan_ethtype ip dst_ip 10.6.0.1 action vlan pop pipe vlan push id 7 pipe mirred egress redirect dev pf0vf0
v() { F pf0vf0 ingress protocol 802.1q prio 7 flower skip_sw vlan_id $1 vlan_ethtype ip dst_ip 10.6.0.2 action vlan pop pipe vlan push id 5 pipe mirred egress redirect dev pf0vf2; }
F pf0vf0 ingress protocol ip prio 2 flower skip_sw dst_ip 10.6.0.2 action mirred egress redirect dev pf0vf2
v 8; ck "another vlan_id, or none, is no match" no P n0 10.6.0.2
v 7; ck "match vlan_id, pop, push" P n0 10.6.0.2
rf() { local t=$1 o; shift; o=$(F "$@" 2>&1) && { echo "taken: $*"; return 1; }; echo "$o"; grep -q "eswitch_sim: .*$t" <<<"$o"; } # refused, and the extack says why
ck "redirect to a VLAN sub-interface is refused" rf "no port of this" pf0vf0 ingress protocol ip prio 9 flower skip_sw action mirred egress redirect dev r5
tc qdisc add dev r5 clsact; ck "skip_sw on a VLAN sub-interface is refused" no F r5 ingress protocol ip prio 9 flower skip_sw action drop
ck "vlan modify is refused" rf "not supported" pf0vf0 ingress protocol 802.1q prio 9 flower skip_sw vlan_id 9 action vlan modify id 6 pipe mirred egress redirect dev pf0vf2
# a bond of the two uplinks: slow path only
ip link add bnd type bond mode active-backup miimon 100; for d in p0 p1; do ip link set $d down; ip link set $d master bnd; done; ip addr add 10.0.0.100/24 dev bnd; ip link set bnd up
for n in 1 2 3 4 5 6 7 8 9; do grep -q up /sys/class/net/bnd/operstate && break; sleep 0.5; done
ck "bond of uplinks (slow path)" ping -c 2 -i 0.2 -W 2 10.0.0.99
ck "redirect to the bond is refused" rf "no port of this" pf0vf0 ingress protocol ip prio 9 flower skip_sw action mirred egress redirect dev bnd
tc qdisc add dev bnd clsact; ck "skip_sw on the bond is refused" no F bnd ingress protocol ip prio 9 flower skip_sw action drop
ck "redirect to an uplink in a bond is taken" P n0 10.0.0.99
ip link del bnd; ip link set p0 up
# knobs of what a driver refuses
K() { echo $2 >$D/$1; }
Q="pf1vf2 ingress"; tc qdisc add dev pf1vf2 clsact; FS="flower skip_sw" to="mirred egress redirect dev pf1vf0"
kn() { local k=$1 l=$2 t=$3; shift 3; K $k 1; ck "$k: $l refused" rf "$t" $Q "$@"; K $k 0; ck "$k 0: $l taken" F $Q "$@"; tc filter del dev $Q; }
kn no_goto goto goto protocol ip prio 1 $FS action goto chain 1
kn no_trap trap trap protocol ip prio 1 $FS action trap
kn no_vlan push "VLAN push" protocol ip prio 1 $FS action vlan push id 5 pipe $to
kn no_vlan match "VLAN match" protocol 802.1q prio 1 $FS vlan_id 5 action drop
kn no_vlan pop "VLAN push" protocol all prio 1 $FS action vlan pop pipe $to
kn no_pedit_ttl "ttl dec" TTL protocol ip prio 1 $FS action pedit ex munge ip ttl dec pipe $to
kn no_pedit_ttl "ttl set" TTL protocol ip prio 1 $FS action pedit ex munge ip ttl set 9 pipe $to
kn no_pedit_ttl "hoplimit dec" TTL protocol ipv6 prio 1 $FS action pedit ex munge ip6 hoplimit dec pipe $to
K no_pedit_ttl 1; ck "no_pedit_ttl leaves MACs" F $Q protocol ip prio 1 $FS action pedit ex munge eth dst set 02:00:00:00:00:01 pipe $to; K no_pedit_ttl 0; tc filter del dev $Q
kn no_match_v6_any ::/0 ::/0 protocol ipv6 prio 1 $FS dst_ip ::/0 action drop
K no_match_v6_any 1; ck "no_match_v6_any: 2000::/3 taken" F $Q protocol ipv6 prio 1 $FS dst_ip 2000::/3 action drop
ck "no_match_v6_any: no address taken" F $Q protocol ipv6 prio 2 $FS action drop; K no_match_v6_any 0; tc filter del dev $Q
d() { echo $Q protocol ip prio $1 $FS dst_ip $2 action drop; } # prio, prefix
K max_prios 2; ck "max_prios 2: two taken" sh -ec "for n in 1 2; do tc filter add dev $Q protocol ip prio \$n $FS dst_ip 10.8.0.\$n action drop; done"
ck "max_prios 2: a third refused" rf "priorities" $(d 3 10.8.0.3)
ck "max_prios 2: more of the same taken" F $(d 2 10.8.3.0/24)
ck "max_prios 2: another chain has its own" F ${Q} chain 1 $(d 3 10.8.0.3 | cut -d' ' -f3-)
tc filter del dev $Q protocol ip prio 1; ck "max_prios 2: room when one is gone" F $(d 3 10.8.0.3); K max_prios 0; tc filter del dev $Q
c() { echo $Q chain $1 protocol ip prio 1 $FS dst_ip 10.8.0.1 action drop; }
K max_chains 3; ck "max_chains 3: 3 taken" F $(c 3); ck "max_chains 3: 4 refused" rf "chain out of range" $(c 4)
ck "max_chains 3: goto 4 refused" rf "out of range" $Q protocol ip prio 1 $FS action goto chain 4
K max_chains 0; ck "max_chains 0: 1 refused" rf "chain out of range" $(c 1); ck "max_chains 0: 0 taken" F $(c 0)
K max_chains 4294967295; ck "max_chains off: 4 taken" F $(c 4); for n in 0 3 4; do tc filter del dev $Q chain $n; done
# a driver that lies: in_hw, counted, not done. The rule is on the way of n1's answers to n0; prio 20 below it forwards
B="pf0vf1 ingress"; T() { ip netns exec n0 ping -c 1 -W 1 10.0.0.11 | grep "ttl=$1 "; }
F $B chain 3 protocol ip prio 1 $FS action drop; to0="mirred egress redirect dev pf0vf0"
li() { local l=$1 bit=$2 honest=$3 lie=$4; shift 4; for w in 0 $bit; do K ignore_actions $w; F $B protocol ip prio 4 $FS dst_ip 10.0.0.10 "$@"; K ignore_actions 0
  [ $w = 0 ] && ck "$l: honest" $honest || { ck "$l: ignore_actions $w" $lie; ck "$l: in_hw and counted all the same" sh -c "tc -s filter show dev $B prio 4 | grep -w in_hw && grep -E '^pf0vf1 chain=0 prio=4 .*pkts=[1-9]' $D/rules"; }
  tc filter del dev $B protocol ip prio 4; done; }
li "TTL" 2 "T 9" "T 64" action pedit ex munge ip ttl set 9 pipe csum ip pipe $to0
li "goto" 4 "no T 64" "T 64" action goto chain 3
li "trap" 8 "no T 64" "T 64" action trap
li "MAC" 1 "no T 64" "T 64" action pedit ex munge eth dst set 02:00:00:00:00:77 pipe $to0
K ignore_actions 1; ck "an unknown pedit: ignored" F $B protocol ip prio 4 $FS action pedit ex munge ip dst set 10.9.9.9 pipe $to0
K ignore_actions 14; ck "an unknown pedit: refused" no F $B protocol ip prio 5 $FS action pedit ex munge ip dst set 10.9.9.9 pipe $to0; K ignore_actions 0
tc filter del dev $B protocol ip prio 4; tc filter del dev $B chain 3
# shared blocks
tc qdisc add dev pf1vf0 ingress_block 1 clsact; K fail_port $(cat /sys/class/net/pf1vf0/ifindex); n=$(cat $D/n_rules)
b() { tc filter add block 1 protocol ip prio $1 flower ${3-} dst_ip 10.7.0.$1 action drop && tc filter show block 1 prio $1 | grep -w "$2"; }
ck "fail_port: in_hw_count 1 of 2" b 3 "in_hw_count 1"; ck "fail_port: one more rule" test $(cat $D/n_rules) -eq $((n+1))
ck "fail_port: skip_sw refused" no b 4 in_hw skip_sw; ck "fail_port: and rolled back" test $(cat $D/n_rules) -eq $((n+1))
K fail_port 0; ck "fail_port 0: in_hw_count 2" b 5 "in_hw_count 2" skip_sw
tc qdisc del dev pf1vf2 clsact; K no_shared_block 1
ck "no_shared_block: no binding to a block with rules in hardware" no tc qdisc add dev pf1vf3 ingress_block 1 clsact
ck "no_shared_block: tc binds a fresh one, in software" tc qdisc add dev pf1vf2 ingress_block 2 clsact
ck "no_shared_block: so skip_sw is refused" no tc filter add block 2 protocol ip prio 1 flower skip_sw dst_ip 10.7.0.1 action drop
tc filter add block 2 protocol ip prio 1 flower dst_ip 10.7.0.1 action drop; ck "no_shared_block: else not_in_hw" sh -c "tc filter show block 2 | grep -w not_in_hw"
tc qdisc del dev pf1vf2 ingress_block 2 clsact; tc qdisc add dev pf1vf2 clsact; ck "no_shared_block: an own block is taken" F $(d 1 10.8.0.1)
tc qdisc del dev pf1vf2 clsact; K no_shared_block 22; ck "no_shared_block 22: tc qdisc fails" no tc qdisc add dev pf1vf2 ingress_block 2 clsact
K no_shared_block 0; tc qdisc add dev pf1vf2 ingress_block 2 clsact; ck "no_shared_block 0: taken" tc filter add block 2 protocol ip prio 1 flower skip_sw dst_ip 10.7.0.1 action drop
ck "devlink function address" devlink port function set platform/eswitch-sim.0/2 hw_addr 02:00:00:00:00:11
ck "to legacy mode" devlink dev eswitch set platform/eswitch-sim.0 mode legacy
ck "no representors left, no rules" sh -c "! ip link show pf0vf0 2>/dev/null && grep -q '^pf0vf0.*rules=0' $D/ports"
ck "back to switchdev" devlink dev eswitch set platform/eswitch-sim.0 mode switchdev
ck "representors are back" ip link show pf0vf0
ip netns del n1; sleep 1; ck "a VF comes home when its netns dies" sh -c 'for i in 1 2 3 4 5 6 7 8; do ip link show vf0_1 && exit 0; sleep 0.5; done; exit 1'
ck "unload" rmmod eswitch_sim
ck "no kernel complaint" sh -c "! dmesg | grep -E 'WARNING|BUG:|Oops|unregister_netdevice: waiting'"
exit $bad
