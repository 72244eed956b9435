#!/usr/bin/env bash
# A VRF of the kernel (l3mdev): its routes go into the table of the VRF, and only there.
#
# r1 has eth2 in VRF red, table 100; r3 is behind it. `-R` of zebra moves only the default VRF, so a
# VRF is `beside` in every set-up. The same prefix in both VRFs must not meet.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init vrf
router r1 r2 r3
ipr r1 link add red type vrf table 100 2>/dev/null || skip "this kernel has no VRF (CONFIG_NET_VRF)"
link r1 eth0 02:00:00:00:01:00 r2 eth0 02:00:00:00:02:00
link r1 eth1 02:00:00:00:01:01 r2 eth1 02:00:00:00:02:01
link r1 eth2 02:00:00:00:01:02 r3 eth0 02:00:00:00:03:00
ipr r1 link set red up
ipr r1 link set eth2 master red
# An address of r1 in the VRF, which r3 hears of, so that answers come back.
ipr r1 addr add 10.40.1.1/32 dev red
# The session with r3 moves into the VRF.
{
    sed '/neighbor eth2/d' "$FRR_CONF/leaf.conf"
    cat <<'CONF'
router bgp 65001 vrf red
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor eth2 interface remote-as external
 neighbor eth2 capability extended-nexthop
 neighbor eth2 timers connect 1
 address-family ipv4 unicast
  neighbor eth2 activate
  redistribute connected
 exit-address-family
exit
CONF
} >"$LAB/leaf.conf"
second_spine >"$LAB/r3.conf"
setup=takeover
[[ $(frr_major) -ge 10 ]] || setup=beside
frr_start_all r1 "$FRR_CONF/daemons.$setup" "$LAB/leaf.conf" \
    r2 "$FRR_CONF/daemons.beside" "$FRR_CONF/spine.conf" \
    r3 "$FRR_CONF/daemons.beside" "$LAB/r3.conf"
offload_start r1 "setup = \"$setup\""
wait_until 20 'the replay is over' synced r1

in_vrf() {
    ipr r1 -N -j route show vrf red exact 10.30.1.0/24 |
        jq -e 'min_by(.metric // 0) | .protocol == "1" and .metric == 10 and .dev == "eth2"'
}
wait_until 60 'in the default VRF: route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 30 'in VRF red: route of ours' in_vrf
check 'which is not in the main table' not_ours r1 10.30.1.0/24
check 'show routes names the VRF' shows r1 10.30.1.0/24 '.vrf == "red" and .table == 100'
wait_until 10 'traffic in the VRF' reaches r1 10.30.1.1 red

lab_passed
