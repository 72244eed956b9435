#!/usr/bin/env bash
# `doctor` on a router with real FRR: nothing is found where all is well; then one thing after another is
# spoilt, and each is found, and the command that doctor gives mends it. What concerns ways in which FRR is
# set or sends its routes is in the labs of those: no-nhg, old-module, takeover, feedback, gateway-lost.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init doctor
# What the audit would put right by itself has time.
OFFLOAD_CONF=$'kernel.multipath_hash = "l4"\nkernel.audit = "1h"' steady_r1 beside

section 'All is well'
check 'nothing but infos' finds_nothing r1
check 'and the exit code says so' offload r1 doctor

# spoils ID TEXT COMMAND...: after that it is found, and can be mended as it is said.
spoils() {
    local id=$1 text=$2
    shift 2
    on r1 "$@"
    wait_until 10 "$id: $text" finds r1 "$id" "$text"
    mends r1 "$id"
}

section 'Sysctls'
spoils not-forwarding 'eth2: ' sysctl -qw net.ipv4.conf.eth2.forwarding=0
spoils not-forwarding 'does not forward IPv4 packets' sysctl -qw net.ipv4.ip_forward=0
on r1 sysctl -qw net.ipv4.ip_forward=1
spoils not-forwarding 'IPv6' sysctl -qw net.ipv6.conf.all.forwarding=0
# The larger of both counts.
spoils strict-rp-filter 'eth0, eth1, eth2: ' sysctl -qw net.ipv4.conf.all.rp_filter=1
on r1 sysctl -qw net.ipv4.conf.all.rp_filter=0
spoils arp-settings 'eth0, eth1, eth2: arp_ignore' sysctl -qw net.ipv4.conf.all.arp_ignore=8
spoils arp-settings 'eth1: arp_filter' sysctl -qw net.ipv4.conf.eth1.arp_filter=1
spoils multipath-hash '"l4"' sysctl -qw net.ipv4.fib_multipath_hash_policy=0
# None of them stops what is forwarded over unnumbered links, to which nobody asks the way by ARP.
on r1 sysctl -qw net.ipv4.conf.all.arp_ignore=8 net.ipv4.conf.all.arp_filter=1 net.ipv4.conf.all.arp_announce=2
check 'traffic, whatever is said of ARP' reaches r3 10.20.1.1 10.30.1.1
on r1 sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_filter=0 net.ipv4.conf.all.arp_announce=0

section 'Other network managers'
index() { on r1 cat "/sys/class/net/$1/ifindex"; }
state() { mkdir -p "$LAB/r1/run/${1%/*}" && printf '%s\n' "${@:2}" >"$LAB/r1/run/$1"; }
managed=NetworkManager/devices/$(index eth1)
state "$managed" '[device]' 'managed=true'
check 'NetworkManager has a link' finds r1 network-manager 'eth1: '
check 'and is told to leave it' test "$(fix_of r1 network-manager)" = 'nmcli device set eth1 managed no'
state "$managed" '[device]' 'managed=false'
check 'then it does not' finds_nothing r1 network-manager
state "systemd/netif/links/$(index eth2)" 'ADMIN_STATE=configured'
check 'systemd-networkd has one' finds r1 networkd-removes-routes 'eth2: '
state systemd/networkd.conf.d/frr.conf '[Network]' 'ManageForeignRoutes=no' 'ManageForeignNextHops=no'
check 'and may leave what is not its own' finds_nothing r1 networkd-removes-routes

section 'Routes of somebody else'
# A sidecar that does not know zebra: what it writes comes back as a kernel route that beats BGP.
spoils feedback-loop '10.20.1.0/24' ip route add 10.20.1.0/24 via 169.254.0.1 dev eth0 onlink proto 4 metric 5
wait_until 20 'and our route is back' ours r1 10.20.1.0/24 'eth0 eth1'
ipr r1 route add 10.20.8.0/24 via 169.254.0.1 dev eth0 onlink proto 186 metric 10
ipr r2 addr add 10.20.8.1/24 dev lan0
wait_until 20 'foreign-route: 10.20.8.0/24' finds r1 foreign-route '10.20.8.0/24'
not_fine() { ! offload r1 doctor >/dev/null; }
check 'an error is bad news' not_fine
mends r1 foreign-route
wait_until 20 'and ours comes' ours r1 10.20.8.0/24 'eth0 eth1'

section 'A link without carrier'
ipr r2 link set eth1 down
# Without next-hop groups of its own zebra tells at once, and nothing is left there.
if [[ $(frr_major) -ge 10 ]]; then
    wait_until 10 'linkdown-routes: eth1' finds r1 linkdown-routes 'eth1: '
    mends r1 linkdown-routes
fi
ipr r2 link set eth1 up

section 'zebra'
frr_configure r1 'no fpm address'
wait_until 10 'no zebra, and vtysh says why' finds r1 zebra-not-connected 'in force'
mends r1 zebra-not-connected
wait_until 20 'the replay is over' synced r1
wait_until 20 'all is well again' finds_nothing r1

lab_passed
