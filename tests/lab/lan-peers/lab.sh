#!/usr/bin/env bash
# Three RFC 5549 peers on one LAN: one interface of r1, three next hops behind it.
#
#   r1 eth0 ----+---- p1  EUI-64 link-local       10.1.1.0/24 behind it
#        bridge +---- p2  random link-local       10.2.1.0/24
#               +---- p3  random link-local       10.3.1.0/24
#
# The peers send router advertisements, so zebra keeps one 169.254.0.1 for that interface, for
# whichever peer spoke last, with a MAC that it makes up if the address is random: its own way to
# write such routes loses two packets of three here. Ours must give each peer an address of its own,
# with the MAC that neighbour discovery learned, stable when the daemon is killed and started again.
# At first only p1 sends them, so that zebra's entry is right for p1 until our daemon can't see it change.
#
# A peer does not forward, so a misdelivered packet is a lost one, and it counts what it answered.
# The same for global IPv6 next hops, and for routes in a table of their own.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

peers=(p1 p2 p3)
packets=${LAB_PINGS:-10000}

lab_init lan-peers
router r1 sw "${peers[@]}"
ipr sw link add br0 type bridge mcast_snooping 0
ipr sw link set br0 addrgenmode none up
link r1 eth0 02:00:00:00:01:00 sw to-r1 02:00:00:00:99:00
ipr sw link set to-r1 master br0 addrgenmode none
# Peer N: MAC 02:00:00:00:0a:0N, 2001:db8:f::N, prefixes 10.N.1.0/24 (next hop link-local),
# 10.N.2.0/24 (next hop global) and 198.51.10N.0/24 (in table 1000).
for number in 1 2 3; do
    link "p$number" eth0 "02:00:00:00:0a:0$number" sw "to-p$number" "02:00:00:00:99:0$number"
    ipr sw link set "to-p$number" master br0 addrgenmode none
    [[ $number == 1 ]] || {
        ipr "p$number" link set eth0 down
        ipr "p$number" link set eth0 addrgenmode random
        ipr "p$number" link set eth0 up
    }
    ipr "p$number" addr add "2001:db8:f::$number/64" dev eth0
    ipr "p$number" addr add "198.51.10$number.1/32" dev lo
    on "p$number" sysctl -qw net.ipv4.ip_forward=0
    # Not by FRR's configuration: its BGP asks for advertisements itself.
    [[ $number == 1 ]] || on "p$number" nft 'table ip6 lab { chain output { type filter hook output priority 0; icmpv6 type nd-router-advert drop; }; }'
done
ipr r1 addr add 2001:db8:f::100/64 dev eth0
has_link_local() { [[ $(link_local "$1" eth0) == fe80::* ]]; }
for peer in "${peers[@]}"; do
    wait_until 5 "$peer has a link-local address" has_link_local "$peer"
    say "$peer is $(link_local "$peer" eth0) with MAC $(mac "$peer" eth0)"
done
check 'that of p1 comes from its MAC' test "$(link_local p1 eth0)" = fe80::ff:fe00:a01
for peer in p2 p3; do check "that of $peer does not" not grep -q 'ff:fe' <<<"$(link_local "$peer" eth0)"; done

# Sessions run over the global addresses of the LAN. A peer's update has both its addresses; r1 takes
# the link-local one as next hop, which is FRR's way, but for 10.N.2.0/24 the global one.
session() { # ADDRESS REMOTE-AS
    printf ' neighbor %s remote-as %s\n neighbor %s timers connect 1\n neighbor %s capability extended-nexthop\n' "$1" "$2" "$1" "$1"
}
common() {
    cat <<CONF
frr defaults datacenter
hostname $1
service integrated-vtysh-config
interface eth0
 no ipv6 nd suppress-ra
 ipv6 nd ra-interval 3
exit
CONF
}
peer_conf() {
    common "p$1"
    cat <<CONF
interface lan0
 ip address 10.$1.1.1/24
 ip address 10.$1.2.1/24
exit
route-map OWN permit 10
 match interface lan0
exit
router bgp 6501$1
 bgp router-id 10.0.1.$1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
$(session 2001:db8:f::100 65001)
 address-family ipv4 unicast
  redistribute connected route-map OWN
  neighbor 2001:db8:f::100 activate
 exit-address-family
exit
CONF
}
r1_conf() {
    common r1
    cat <<CONF
fpm address 127.0.0.1 port 2620
interface lo
 ip address 10.0.0.1/32
exit
route-map OUT permit 10
 match interface lo
exit
ip prefix-list SECOND permit 10.1.2.0/24
ip prefix-list SECOND permit 10.2.2.0/24
ip prefix-list SECOND permit 10.3.2.0/24
route-map IN permit 10
 match ip address prefix-list SECOND
 set ipv6 next-hop prefer-global
exit
route-map IN permit 20
exit
router bgp 65001
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
$(for number in 1 2 3; do session "2001:db8:f::$number" "6501$number"; done)
 address-family ipv4 unicast
  redistribute connected route-map OUT
$(for number in 1 2 3; do
        printf '  neighbor %s activate\n' "2001:db8:f::$number"
        printf '  neighbor %s route-map IN in\n' "2001:db8:f::$number"
    done)
 exit-address-family
exit
CONF
}
r1_conf >"$LAB/r1.conf"
frr_start r1 "$FRR_CONF/daemons.beside" "$LAB/r1.conf"
for number in 1 2 3; do
    peer_conf "$number" >"$LAB/p$number.conf"
    frr_start "p$number" "$FRR_CONF/daemons.beside" "$LAB/p$number.conf"
done
offload_start r1
ok 'FRR runs on r1 and its three peers'
# In a table of its own, over the routes of BGP. zebra sends such routes only while we listen, never in its replay.
wait_until 20 'the replay is over' synced r1
frr_configure r1 'ip route 198.51.101.0/24 10.1.1.1 table 1000' \
    'ip route 198.51.102.0/24 10.2.1.1 table 1000' 'ip route 198.51.103.0/24 10.3.2.1 table 1000'

# to_peer PREFIX PEER [TABLE]: what the kernel prefers there is ours, by an address whose neighbour
# entry has the MAC of exactly that peer.
to_peer() {
    local route via entry
    route=$(ipr r1 -N -j route show table "${3:-main}" exact "$1" | jq -ce 'min_by(.metric // 0)') ||
        { echo "no route $1"; return 1; }
    jq -e '.protocol == "1" and .metric == 10' <<<"$route" >/dev/null || { echo "not ours: $route"; return 1; }
    via=$(hops "$route")
    [[ $via =~ ^eth0\ (169\.254\.[0-9.]+)\ onlink$ ]] || { echo "$1 by '$via': $route"; return 1; }
    via=${BASH_REMATCH[1]}
    entry=$(ipr r1 neigh show "$via" dev eth0)
    [[ $entry == *"lladdr $(mac "$2" eth0) "*PERMANENT* ]] || { echo "$1 by $via, which is: $entry"; return 1; }
}
all_right() {
    local number
    for number in 1 2 3; do
        to_peer "10.$number.1.0/24" "p$number" && to_peer "10.$number.2.0/24" "p$number" &&
            to_peer "198.51.10$number.0/24" "p$number" 1000 || return 1
    done
}
# The address that stands for each next hop.
stand_ins() { ipr r1 -j route show table all proto 1 | jq -rc 'sort_by(.dst)[] | "\(.dst) \(.gateway)"'; }
# Echo requests that this peer has answered.
# shellcheck disable=SC2016  # these are fields of awk
answered() { on "$1" awk '/^Icmp:/ && !n { n = split($0, name); next } /^Icmp:/ { for (i = 2; i <= n; i++) if (name[i] == "InEchos") print $i }' /proc/net/snmp; }

# exact COUNT ADDRESS-OF-1 2 3: so many pings to each, none lost, each counted by its own peer alone.
exact() {
    local count=$1 addresses=("${@:2}") number other output got want
    local -A before
    for number in 1 2 3; do
        for other in 1 2 3; do before[$other]=$(answered "p$other"); done
        output=$(on r1 ping -n -q -f -c "$count" -W 1 -I 10.0.0.1 "${addresses[number - 1]}") || true
        [[ $output == *" $count received, 0% packet loss"* ]] || { echo "to p$number: $output"; return 1; }
        for other in 1 2 3; do
            got=$(($(answered "p$other") - before[$other])) want=0
            [[ $other != "$number" ]] || want=$count
            [[ $got == "$want" ]] || { echo "of $count packets for p$number, p$other answered $got"; return 1; }
        done
    done
}
everything_exact() {
    exact "$packets" 10.1.1.1 10.2.1.1 10.3.1.1 &&
        exact $((packets / 10)) 10.1.2.1 10.2.2.1 10.3.2.1 &&
        exact $((packets / 10)) 198.51.101.1 198.51.102.1 198.51.103.1
}

section 'Three peers, nine prefixes'
wait_until 40 'each prefix goes to its own peer, by link-local and global next hops, and in table 1000' all_right
wait_until 20 'nothing is pending or failed' all_installed r1
frr_has_both() {
    vtysh r1 'show ip route 10.2.1.0/24' | grep -q fe80:: && vtysh r1 'show ip route 10.2.2.0/24' | grep -q 2001:db8:f::2
}
check 'FRR has the next hops that this is about' frr_has_both
stand_ins | sed 's/^/        /'
zebras_entry() { ipr r1 neigh show 169.254.0.1 dev eth0 | grep 'proto zebra'; }
is_of_p1() { zebras_entry | grep "$(mac p1 eth0)"; }
is_of_another() { zebras_entry | grep -v "$(mac p1 eth0)"; }
wait_until 20 'zebra has its own 169.254.0.1 there, that of p1' is_of_p1
check 'and each prefix still goes to its own peer' all_right
# Policy routing, as an operator of such a table would have it.
ipr r1 rule add to 198.51.0.0/16 lookup 1000 pref 100
check "$packets pings to a prefix behind each, and a tenth for the other two: none lost, none misdelivered" everything_exact

section 'Our daemon is killed and started again, twice, as the first time it has nothing to write yet'
vias=$(stand_ins)
kill_hard r1/frr-offload
for peer in p2 p3; do on "$peer" nft delete table ip6 lab; done
wait_until 20 'meanwhile 169.254.0.1 of zebra becomes that of another' is_of_another
say "$(zebras_entry)"
check 'without it all goes on' exact 100 10.1.1.1 10.2.1.1 10.3.1.1
offload_revive r1
kill_hard r1/frr-offload
offload_revive r1
wait_until 20 'it is in step again' synced r1
wait_until 20 'nothing is pending or failed' all_installed r1
check 'each prefix goes to its own peer' all_right
check 'by the same addresses as before' test "$(stand_ins)" = "$vias"
check 'and none is lost' everything_exact

section 'A peer gets another link-local address'
# Session and next hop change; the others must not notice.
vias=$(stand_ins | grep -v -E '^(10.2|198.51.102)')
ipr p2 link set eth0 down
ipr p2 link set eth0 addrgenmode eui64
ipr p2 link set eth0 up
ipr p2 addr replace 2001:db8:f::2/64 dev eth0
follows() { vtysh r1 'show ip route 10.2.1.0/24' | grep -q 'fe80::ff:fe00:a02' && all_right; }
wait_until 60 'its prefix goes by the new one' follows
check 'the others by the same as ever' test "$(stand_ins | grep -v -E '^(10.2|198.51.102)')" = "$vias"
# What zebra of p2 does with its way back meanwhile is not what this is about.
tables() { ipr p2 route; ipr p2 nexthop; ipr r1 route; ipr r1 nexthop; }
is_calm() { local before; before=$(tables) && sleep 1.5 && [[ $before == "$(tables)" ]]; }
wait_until 20 'p2 and r1 have come to rest' is_calm
check 'none is lost' everything_exact

lab_passed
