#!/usr/bin/env bash
# The recipe for hosts with ifupdown2, by its own files: real ifupdown2 brings the links up, FRR and our daemon
# run on the recipe's files, BGP unnumbered comes up, and `ifreload` takes no route of ours away, whether
# nothing or something has changed. The VRF of the recipe only where the kernel has VRF.
#
#   h1 eth0 -- swp3 leaf swp1 -- eth0 spine
#                        swp2 -- eth1
#                        swp4 -- eth0 tenant   (VRF red)
#
# ifupdown2 is unpacked, not installed, and sees a copy of /etc.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$LAB_SOURCE/checks.sh"

RECIPE=$ROOT/docs/recipes/cumulus
lab_init recipe-cumulus
command -v python3 >/dev/null || skip "no python3, which ifupdown2 is written in"
IFUPDOWN2=$("$ROOT/scripts/deb-tree" ifupdown2) || skip "ifupdown2 can't be had here"

# leaf is all that ifupdown2 makes of it: nothing is up, and it does not forward.
ip netns add "$(ns leaf)"
routes_packets leaf
on leaf sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.fib_multipath_hash_policy=0
router spine h1 tenant
link leaf swp1 02:00:00:00:01:00 spine eth0 02:00:00:00:02:00
link leaf swp2 02:00:00:00:01:01 spine eth1 02:00:00:00:02:01
link leaf swp3 02:00:00:00:01:02 h1 eth0 02:00:00:00:03:00
link leaf swp4 02:00:00:00:01:03 tenant eth0 02:00:00:00:04:00
for port in lo swp1 swp2 swp3 swp4; do ipr leaf link set "$port" down; done
ipr h1 addr add 10.10.1.2/24 dev eth0
ipr h1 route add default via 10.10.1.1
vrf=yes
ipr leaf link add probe type vrf table 99 2>/dev/null || vrf=no
[[ $vrf == no ]] || ipr leaf link delete probe

cp -a /etc "$LAB/leaf/host-etc"
mkdir -p "$LAB/leaf/run/network"
rm -rf "$LAB/leaf/host-etc/network"
cp -a "$IFUPDOWN2/etc/network" "$LAB/leaf/host-etc/"
mkdir -p "$LAB/leaf/host-etc/network/interfaces.d"
cp "$RECIPE/interfaces" "$LAB/leaf/host-etc/network/"
for name in ifup ifdown ifreload ifquery; do ln -s "$IFUPDOWN2/usr/share/ifupdown2/__main__.py" "$LAB/bin/$name"; done
# by_ifupdown2 COMMAND...: one of its programs on leaf.
by_ifupdown2() {
    local name=$1
    shift
    # shellcheck disable=SC2016  # expanded by the inner shell
    on leaf sh -c 'mount --bind "$0/host-etc" /etc && exec python3 "$@"' "$LAB/leaf" "$LAB/bin/$name" "$@"
}

section 'The network'
check 'sysctl takes the file of the recipe' on leaf sysctl -qp "$RECIPE/sysctl.conf"
check 'the leaf forwards' test "$(on leaf sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.fib_multipath_hash_policy | tr '\n' ' ')" = '1 1 1 '
check 'ifup -a' by_ifupdown2 ifup -a
check 'what stands is what the file says' by_ifupdown2 ifquery --check -a
never 'no IPv4 address on an uplink' grep -q . <(ipr leaf -4 -o addr show dev swp1; ipr leaf -4 -o addr show dev swp2)

section 'FRR and the daemon, by the files of the recipe'
cp "$RECIPE/frr.conf" "$LAB/leaf.conf"
[[ $vrf == yes ]] || sed -i '/^! The VRF/,$d' "$LAB/leaf.conf"
[[ $vrf == no ]] || cp "$RECIPE/interfaces.d/tenant" "$LAB/leaf/host-etc/network/interfaces.d/"
[[ $vrf == no ]] || check 'ifreload -a makes the VRF' by_ifupdown2 ifreload -a
sed -e '/ eth1 /d' -e 's/spine1/tenant1/; s/65002/65004/; s/10\.0\.0\.2/10.0.0.4/; s/2001:db8::2/2001:db8::4/' \
    -e 's/10\.20\./10.40.20./; s/10\.40\.20\.1\.1/10.40.20.1/; s/2001:db8:20:/2001:db8:40:/' "$FRR_CONF/spine.conf" >"$LAB/tenant.conf"
frr_start_all leaf "$RECIPE/daemons" "$LAB/leaf.conf" spine "$FRR_CONF/daemons.beside" "$FRR_CONF/spine.conf" \
    tenant "$FRR_CONF/daemons.beside" "$LAB/tenant.conf"
check 'the configuration is right' on leaf frr-offload check --config "$RECIPE/config.toml"
offload_start leaf "$(cat "$RECIPE/config.toml")"
steady_leaf() {
    all_installed leaf && ours leaf 10.20.1.0/24 'swp1 swp2' && ours leaf 2001:db8:20::/64 'swp1 swp2' && ours leaf 0.0.0.0/0 'swp1 swp2' || return 1
    [[ $vrf == no ]] || in_vrf
}
in_vrf() {
    ipr leaf -N -j route show vrf red exact 10.40.20.0/24 |
        jq -e 'min_by(.metric // 0) | .protocol == "1" and .metric == 10 and .dev == "swp4"'
}
wait_until 60 'BGP unnumbered is up, and its routes are ours' steady_leaf
wait_until 20 'a host behind the leaf reaches the network behind the spine' reaches h1 10.20.1.1
# What the page says to look at.
check 'show status: in place' grep -q 'in place' <(offload leaf show status)
check 'show routes: by 169.254.0.1 over both uplinks' test "$(offload leaf show routes 10.20.1.0/24 --json | jq -r '[.[0].nexthops[] | .dev + " " + .kernel_via] | sort | join(",")')" = 'swp1 169.254.0.1,swp2 169.254.0.1'
check 'FRR has its neighbours' grep -q swp2 <(vtysh leaf 'show bgp summary')

section 'ifreload takes nothing of ours'
fib() { ipr leaf -N route show table all proto 1 && ipr leaf -N -6 route show table all proto 1 && ipr leaf -N nexthop show proto 1 && ipr leaf neigh show nud permanent; }
# unharmed 'what' COMMAND...: meanwhile the kernel told of no route, next hop or neighbour of ours that goes.
unharmed() {
    local what=$1 gone
    shift
    fib >"$LAB/before"
    : >"$LAB/leaf/log/monitor"
    spawn leaf/monitor / ip -N monitor route nexthop neigh
    wait_until 5 'the kernel is listened to' monitor_hears
    check "$what" "$@"
    end leaf/monitor
    gone=$(grep '^Deleted' "$LAB/leaf/log/monitor" | grep -E 'proto 1( |$)|169\.254\.' || true)
    check 'nothing of ours went meanwhile' test -z "$gone"
    check 'and all of it is there' cmp "$LAB/before" <(fib)
}
# An entry that means nothing, until the monitor tells of it.
monitor_hears() {
    ipr leaf neigh replace 10.10.1.9 lladdr 02:00:00:00:09:09 nud reachable dev swp3
    ipr leaf neigh delete 10.10.1.9 dev swp3
    grep -q 'Deleted.*10\.10\.1\.9' "$LAB/leaf/log/monitor"
}
unharmed 'ifreload -a, with nothing to change' by_ifupdown2 ifreload -a
ipr leaf addr add 192.0.2.9/32 dev swp3
unharmed 'ifreload -a, with an address to remove' by_ifupdown2 ifreload -a
never 'that address is gone' grep -q 192.0.2.9 <(ipr leaf addr show dev swp3)
sed -i 's|^    alias hosts$|&\n    address 10.10.2.1/24|' "$LAB/leaf/host-etc/network/interfaces"
unharmed 'ifreload -a, with one more address' by_ifupdown2 ifreload -a
check 'which is there' grep -q 10.10.2.1 <(ipr leaf addr show dev swp3)

section 'ifdown and ifup of an uplink'
check 'ifdown swp1' by_ifupdown2 ifdown swp1
wait_until 15 'routes go over the other' ours leaf 10.20.1.0/24 swp2
check 'ifup swp1' by_ifupdown2 ifup swp1
wait_until 30 'routes go over both again' steady_leaf
wait_until 10 'the doctor finds nothing bad' finds_nothing leaf

lab_passed
