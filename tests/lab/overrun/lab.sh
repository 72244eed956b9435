#!/usr/bin/env bash
# The kernel drops what it has to say (ENOBUFS), because our daemon did not listen for a moment.
#
# The daemon is stopped (SIGSTOP) until the queue of its monitor, of the size it really has, has run
# over: /proc/net/netlink counts what was dropped. From then on the kernel drops everything until the
# queue is read, so whatever happens next the daemon never hears of: nothing that matters; a link that
# went down and up; routes, objects, neighbours and MACs; a link that is another one now. When it goes
# on it says so once, reads everything back, and all is right again.
#
# Acknowledgements of the writer can't run over by load: its queue holds the answers to the largest
# batch many times over (tests/netns_kernel.rs shows what it does if they are lost, and more). Here
# the queue of the running daemon is made as small as the kernel allows, by a copy of its file
# descriptor (pidfd_getfd), and twenty writes of one batch are refused.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init overrun
# Nothing is mended by the audit.
OFFLOAD_CONF='kernel.audit = "1h"' steady_r1
static_ways

# dropped listener|others: how many messages the kernel has dropped at the daemon's netlink sockets that
# listen to groups, or at the others.
dropped() {
    local pid=${PID[r1/frr-offload]}
    awk -v which="$1" -v inodes="$(find "/proc/$pid/fd" -lname 'socket:*' -printf '%l ' | tr -d 'socket:[]')" '
        BEGIN { split(inodes, list, " "); for (i in list) ours[list[i]] }
        $2 == 0 && $10 in ours && ($4 == "00000000") == (which == "others") { sum += $9 }
        END { print sum + 0 }' "/proc/$pid/net/netlink"
}

# One neighbour of lan0 gets one MAC after the other: 5000 notifications a round, and zebra has little
# to do with them.
for ((n = 0; n < 5000; n++)); do
    printf 'neigh replace 198.18.0.1 dev lan0 nud permanent lladdr 02:00:00:66:%02x:%02x\n' $((n / 256)) $((n % 256))
done >"$LAB/flood"

overruns=0
# deafen: the daemon stops, and its queue runs over.
deafen() {
    local before rounds
    before=$(dropped listener)
    signal r1/frr-offload STOP
    for ((rounds = 0; rounds < 40; rounds++)); do
        ipr r1 -batch "$LAB/flood"
        (($(dropped listener) == before)) || break
    done
    check "stopped, and the kernel drops what it says after $((rounds + 1)) times 5000 notifications" \
        test "$(dropped listener)" -gt "$before"
}
told() { offload r1 show events --json | jq -e --argjson n "$overruns" '[.[] | select(.kind == "netlink-overrun")] | length == $n'; }
# hears_again 'what' COMMAND...: it goes on, says the overrun, and the condition comes true.
hears_again() {
    signal r1/frr-offload CONT
    overruns=$((overruns + 1))
    wait_until 10 'it goes on: show events tells of the overrun' told
    wait_until 15 "$@"
    check 'the overrun was told once' told
}
# Every network of the others, and through r1 from one to the other.
answers() { on "$1" ping -n -q -c 1 -W 2 -I "$3" "$2"; }
everything_reached() {
    local address
    for address in 10.20.1.1 10.30.1.1 10.0.0.2 10.0.0.3; do answers r1 "$address" 10.10.1.1 || return 1; done
    for address in 2001:db8:20::1 2001:db8:30::1 2001:db8::2 2001:db8::3; do answers r1 "$address" 2001:db8:10::1 || return 1; done
    answers r3 10.20.1.1 10.30.1.1 && answers r3 2001:db8:20::1 2001:db8:30::1
}
fib() { ipr r1 -N -j route show proto 1 | jq -S 'sort_by(.dst)' && ipr r1 -N -j -6 route show proto 1 | jq -S 'sort_by(.dst)'; }

section 'Nothing that matters was lost'
before=$(fib)
crossing_start
deafen
hears_again 'it is in step' steady
check 'the kernel has the very same routes' test "$(fib)" = "$before"
not_one_lost 'not one packet was lost'

section 'A link went down and up'
frr_sees() { vtysh r1 "show interface $1" | grep -q 'is up, line protocol is up'; }
deafen
ipr r1 link set eth2 down
wait_until 10 'FRR sees eth2 down' not frr_sees eth2
ipr r1 link set eth2 up
wait_until 30 'FRR has everything back' bgp_converged
check 'our route over it is gone: the kernel took it' not_ours r1 10.30.1.0/24
hears_again 'all routes are back' steady
check 'traffic' everything_reached

section 'Others deleted and changed what is ours, and a peer has another MAC'
on r3 sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1
learned() { ipr r1 neigh show fe80::ff:fe00:300 dev eth2 | grep "lladdr $1 "; }
gateway() { hops "$(preferred r1 10.20.1.0/24)" | sed -n 's/^eth0 \([^ ]*\) .*/\1/p'; }
deafen
ipr r1 route del 10.30.1.0/24 metric 10
ipr r1 -6 route del 2001:db8:20::/64 metric 10
ipr r1 neigh replace "$(gateway)" dev eth0 lladdr 02:00:00:00:66:66 nud permanent proto 1
ipr r1 nexthop del id "$(preferred r1 2001:db8:30::/64 | jq .nhid)"
ipr r3 link set eth0 address 02:00:00:00:03:99
wait_until 10 'the kernel knows the new MAC of r3' learned 02:00:00:00:03:99
hears_again 'all routes are back, with the right MACs' steady
check 'show routes has the new MAC' shows r1 10.30.1.0/24 '.nexthops[0].mac == "02:00:00:00:03:99"'
check 'traffic' everything_reached

section 'A link is another one now'
new_eth3() {
    link r1 eth3 02:00:00:00:01:03 r3 eth1 02:00:00:00:03:01
    ipr r1 addr add 192.0.2.1/24 dev eth3
}
static_there() {
    ours r1 2001:db8:105::/48 eth3 &&
        preferred r1 198.51.105.0/24 | jq -e '.protocol == "1" and .dev == "eth3" and .gateway == "192.0.2.2"'
}
new_eth3
frr_configure r1 'ipv6 route 2001:db8:105::/48 fe80::ff:fe00:301 eth3' 'ip route 198.51.105.0/24 192.0.2.2 eth3'
wait_until 20 'static routes over eth3' static_there
deafen
ipr r1 link del eth3
new_eth3
hears_again 'both static routes go over the new eth3' static_there
wait_until 10 'and the others are as ever' steady
frr_configure r1 'no ipv6 route 2001:db8:105::/48 fe80::ff:fe00:301 eth3' 'no ip route 198.51.105.0/24 192.0.2.2 eth3'
wait_until 10 'withdrawn' not_ours r1 198.51.105.0/24

section 'Acknowledgements are lost'
# others_hold BYTES: the queues of the daemon's netlink sockets that don't listen hold so much. The
# numbers of pidfd_open and pidfd_getfd are the same on all architectures.
others_hold() {
    perl -e '
        use Socket;
        my ($pid, $bytes, @fds) = @ARGV;
        (my $process = syscall(434, $pid + 0, 0)) >= 0 or die "pidfd_open: $!\n";
        for my $fd (@fds) {
            (my $copy = syscall(438, $process, $fd + 0, 0)) >= 0 or die "pidfd_getfd: $!\n";
            open(my $socket, "+<&=", $copy) or die "$!\n";
            setsockopt($socket, SOL_SOCKET, SO_RCVBUF, pack("i", $bytes)) or die "SO_RCVBUF: $!\n";
        }' "${PID[r1/frr-offload]}" "$1" "${fds[@]}"
}
pid=${PID[r1/frr-offload]}
mapfile -t fds < <(awk '$2 == 0 && $4 == "00000000" { print $10 }' "/proc/$pid/net/netlink" |
    while read -r inode; do find "/proc/$pid/fd" -lname "socket:\[$inode\]" -printf '%f\n'; done)
check "its netlink sockets that don't listen: file descriptors ${fds[*]}" others_hold 1
news() { for ((n = 1; n <= 40; n++)); do echo "10.21.$n.$1"; done; }
# Half of them are somebody else's already; FRR does not import protocol 196.
foreign() { for ((n = 1; n <= 40; n += 2)); do echo "10.21.$n.0/24"; done; }
for prefix in $(foreign); do echo "route add blackhole $prefix proto 196 metric 10"; done >"$LAB/in-the-way"
ipr r1 -batch "$LAB/in-the-way"
signal r1/frr-offload STOP
mapfile -t lines < <(news 1/24 | sed 's/^/ip address /')
frr_configure r2 'interface lan0' "${lines[@]}"
all_in_frr() { (($(vtysh r1 'show ip route bgp json' | jq '[keys[] | select(startswith("10.21."))] | length') == 40)); }
wait_until 20 'FRR has forty new prefixes, all at once for us' all_in_frr
signal r1/frr-offload CONT
ours_of_new() { (($(ipr r1 -N -j route show proto 1 metric 10 root 10.21.0.0/16 | jq length) == $1)); }
wait_until 10 'those that are free are ours' ours_of_new 20
check 'the kernel dropped acknowledgements' test "$(dropped others)" -gt 0
asked_again() { grep 'sending the batch again, one by one' "$LAB/r1/log/frr-offload"; }
check 'the log says so' asked_again
foreign_told() { (($(offload r1 show routes --json | jq '[.[] | select(.reason == "foreign-route")] | length') == 20)); }
wait_until 10 'of the others show routes says that they are foreign' foreign_told
check 'and they are left alone' test "$(ipr r1 -N -j route show proto 196 root 10.21.0.0/16 | jq length)" = 20
sed -i 's/add/del/' "$LAB/in-the-way"
ipr r1 -batch "$LAB/in-the-way"
wait_until 10 'they went: all forty are ours' ours_of_new 40
wait_until 10 'nothing is left to do' steady

section 'Notifications and acknowledgements at once'
# To delete a route that is not there is refused, too.
deafen
for prefix in $(news 0/24 | head -n 30); do echo "route del $prefix metric 10"; done >"$LAB/deletes"
ipr r1 -batch "$LAB/deletes"
mapfile -t lines < <(news 1/24 | sed 's/^/no ip address /')
frr_configure r2 'interface lan0' "${lines[@]}"
none_in_frr() { (($(vtysh r1 'show ip route bgp json' | jq '[keys[] | select(startswith("10.21."))] | length') == 0)); }
wait_until 20 'FRR has none of the forty' none_in_frr
check 'the kernel still has ten of them' ours_of_new 10
hears_again 'these are gone, too' ours_of_new 0
others_hold 1048576
wait_until 10 'nothing is left to do' steady
check 'traffic' everything_reached

lab_passed
