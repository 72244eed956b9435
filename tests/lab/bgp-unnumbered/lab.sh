#!/usr/bin/env bash
# The main job: BGP unnumbered with real FRR, set-up `beside`.
#
# r1 has two links to r2 and one to r3, none with an IPv4 address. Every IPv4 prefix arrives with
# IPv6 link-local next hops. Our routes must be the ones the kernel prefers, by 169.254.x.x onlink
# with the peer's MAC, over both links where there are two; traffic crosses r1 in both directions;
# a lost link leaves the other one, its return brings both back; withdrawn prefixes go; and when
# the daemon stops, zebra's own routes still forward.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init bgp-unnumbered
three_routers
offload_start r1
wait_until 40 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1

section 'Routes'
wait_until 10 'two links: ECMP route of ours' ours r1 10.20.1.0/24 'eth0 eth1'
wait_until 10 'one link: route of ours' ours r1 10.30.1.0/24 eth2
wait_until 10 'a host route' ours r1 10.0.0.3/32 eth2
wait_until 10 'default route over all three' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
wait_until 10 'nothing is pending or failed' all_installed r1
check 'the kernel sends packets to our address' takes_our_route r1 10.20.1.1
check 'connected networks stay with the kernel' not_ours r1 10.10.1.0/24
check 'show routes: next hops as FRR means them' shows r1 10.20.1.0/24 \
    '.protocol == "bgp" and .type == "unicast" and .kernel == "installed" and .reason == null and
     ([.nexthops[].dev] | sort) == ["eth0", "eth1"] and
     all(.nexthops[]; (.via | startswith("fe80::")) and (.kernel_via | startswith("169.254.")))'

section 'Metrics'
wait_until 10 'the daemon is ready' is_ready r1
wait_until 10 'metrics are what show status says' metrics_agree r1

section 'Traffic'
check 'from r1 to the network of r2' reaches r1 10.20.1.1 10.10.1.1
check 'from r1 to the network of r3' reaches r1 10.30.1.1 10.10.1.1
check 'through r1, from r3 to r2' reaches r3 10.20.1.1 10.30.1.1

section 'A prefix comes and goes'
frr_configure r2 'interface lan0' 'ip address 10.20.9.1/24'
wait_until 15 'new prefix' ours r1 10.20.9.0/24 'eth0 eth1'
check 'reachable' reaches r1 10.20.9.1 10.10.1.1
frr_configure r2 'interface lan0' 'no ip address 10.20.9.1/24'
wait_until 15 'withdrawn prefix is gone' not_ours r1 10.20.9.0/24
check 'the others are untouched' ours r1 10.20.1.0/24 'eth0 eth1'

section 'A cable is pulled'
ping_start crossing r3 10.20.1.1 10.30.1.1
ipr r2 link set eth1 down
wait_until 10 'the other path carries on' ours r1 10.20.1.0/24 eth0
check 'through r1, from r3 to r2' reaches r3 10.20.1.1 10.30.1.1
ipr r2 link set eth1 up
wait_until 40 'the cable is back: both paths again' ours r1 10.20.1.0/24 'eth0 eth1'
lost=$(ping_lost crossing r3)
say "$lost of the packets from r3 to r2 were lost meanwhile (50 a second)"

section 'Our own side goes down, and a last member with it'
ipr r1 link set eth2 down
wait_until 15 'the only path of 10.30.1.0/24 is gone' not_ours r1 10.30.1.0/24
wait_until 15 'the default route has two left' ours r1 0.0.0.0/0 'eth0 eth1'
ipr r1 link set eth2 up
wait_until 40 'and comes back' ours r1 10.30.1.0/24 eth2
wait_until 15 'so does the default route' ours r1 0.0.0.0/0 'eth0 eth1 eth2'
wait_until 10 'traffic again' reaches r1 10.30.1.1 10.10.1.1

section 'The daemon stops'
offload_stop r1
check 'traffic goes on' reaches r1 10.20.1.1 10.10.1.1

lab_passed
