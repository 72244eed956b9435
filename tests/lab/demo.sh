# shellcheck shell=bash
# The demo, after everything is installed and built: see scripts/demo.
# The routers run the files of frr-conf as they are: r1 leaf.conf, r2 spine.conf, r3 the same with
# other numbers. Not a test of details (those are the labs), but nothing in it may be untrue.
. "$(dirname "$0")/lib.sh"
. "$LAB_SOURCE/checks.sh"

# show ROUTER COMMAND...: as an operator would type it, and what comes out of it.
show() {
    printf '\n%s%s# %s%s\n' "$DIM" "$1" "${*:2}" "$PLAIN"
    on "$@" | cut -c 1-160
}
show_frr() {
    printf '\n%s%s# vtysh -c "%s"%s\n' "$DIM" "$1" "$2" "$PLAIN"
    # Not the legend of letters, which is longer than the answer.
    vtysh "$@" | sed '1,/^ *t - trapped/d' | sed '/./,$!d'
}

# The link over which r1 sends the flow from r3 to r2, by the kernel's own hash.
flow_link() {
    ipr r1 -j route get 10.20.1.1 from 10.30.1.1 iif eth2 | jq -r '.[0].dev'
}

section '1. Three routers'
cat <<'EOF'

   lan0 10.10.1.0/24       eth0 ------- eth0
          r1  AS 65001     eth1 ------- eth1  r2  AS 65002   lan0 10.20.1.0/24
          frr-offload      eth2 ------- eth0  r3  AS 65003   lan0 10.30.1.0/24

   No link has an IPv4 address. BGP runs over IPv6 link-local addresses and
   carries IPv4 routes with IPv6 next hops (RFC 8950).

EOF
lab_init demo
three_routers
offload_start r1 'setup = "beside"'
ok 'frr-offload runs on r1'
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'zebra has sent frr-offload its routes' synced r1
wait_until 20 'frr-offload has written them' all_installed r1

section '2. The routes as FRR has them'
show_frr r1 'show ip route bgp'

section '3. As frr-offload has them'
show r1 frr-offload show status
show r1 frr-offload show routes -4

section '4. As the kernel has them'
say 'protocol redirect, metric 10: ours. Metric 20 is the copy of zebra, the safety net.'
show r1 ip route show 10.20.1.0/24
show r1 ip route show proto redirect
show r1 ip nexthop show proto 1
show r1 ip neigh show to 169.254.0.0/16
echo
check '10.20.1.0/24: what the kernel prefers is ours, over both links, to the right MACs' \
    ours r1 10.20.1.0/24 'eth0 eth1'
check '10.30.1.0/24: ours, over eth2' ours r1 10.30.1.0/24 eth2
check 'default route: ours, over all three' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
check '2001:db8:20::/64: ours, over both links' ours r1 2001:db8:20::/64 'eth0 eth1'
check 'a packet to 10.20.1.1 takes our 169.254.x.x' takes_our_route r1 10.20.1.1

section '5. Why does 10.20.1.1 go where it goes?'
show r1 frr-offload explain 10.20.1.1

section '6. Traffic'
show r1 ping -n -c 3 -i 0.2 -W 1 -I 10.10.1.1 10.20.1.1
check 'from the network of r1 to the network of r2' reaches r1 10.20.1.1 10.10.1.1
check 'from the network of r1 to the network of r3' reaches r1 10.30.1.1 10.10.1.1
check 'from the network of r3 through r1 to that of r2' reaches r3 10.20.1.1 10.30.1.1

section '7. A cable is pulled'
link=$(flow_link)
other=eth0
[[ $link != eth0 ]] || other=eth1
say "The flow from r3 to r2 goes over $link of r1. It is pulled out at r2."
ping_start flow r3 10.20.1.1 10.30.1.1
ipr r2 link set "$link" down
wait_until 10 "all goes over $other" ours r1 10.20.1.0/24 "$other"
wait_until 10 'and back, at r2' frr_uses r2 10.30.1.0/24 "$other"
show r1 ip route show 10.20.1.0/24 metric 10
echo
check 'after the switch: 100 packets, none lost' no_loss r3 10.20.1.1 10.30.1.1
ipr r2 link set "$link" up
wait_until 40 'the cable is back: both links again' ours r1 10.20.1.0/24 'eth0 eth1'
lost=$(ping_lost flow r3)
say "While all that happened, one packet every 20 ms from r3 to r2: $lost lost."
show r1 frr-offload show events
show r1 frr-offload doctor
check 'doctor finds nothing that needs mending' finds_nothing r1

lab_passed
