#!/usr/bin/env bash
# Routes over FRR's northbound gRPC, of a real zebra: they become in the kernel what FPM's become, changes come with
# the next round, FPM goes first where it speaks and is audited, and a table that zebra can't put into words (two
# static routes of one prefix) leaves everything as it was.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"
. "$LAB_SOURCE/northbound.sh"

lab_init northbound
northbound_routers
announce_weights
frr_configure r1 \
    'ip route 198.51.100.0/24 blackhole' 'ip route 198.51.101.0/24 reject' 'ip route 198.51.102.0/24 10.30.1.1' \
    'ip route 198.51.103.0/24 10.10.1.99' 'ip route 198.51.104.0/24 lan0' \
    'ip route 198.51.105.0/24 192.0.2.9 lan0 onlink' \
    'ip route 198.51.106.0/24 10.10.1.99' 'ip route 198.51.106.0/24 10.10.1.98' \
    'ipv6 route 2001:db8:100::/48 blackhole' 'ipv6 route 2001:db8:101::/48 reject' \
    'ipv6 route 2001:db8:102::/48 fe80::ff:fe00:300 eth2' 'ipv6 route 2001:db8:103::/48 2001:db8:10::99'
wait_until 60 'BGP has converged' bgp_converged
TABLES='fpm.table_map = { 100 = 100 }'

section 'Over FPM'
offload_start r1 "$TABLES"
wait_until 20 'the replay is over' synced r1
# FRR does not replay routes of such a table, so they come while it listens.
frr_configure r1 'ip route 198.51.107.0/24 10.10.1.99 table 100' 'ipv6 route 2001:db8:104::/48 2001:db8:10::99 table 100'
# all_of_ours: one of each kind.
all_of_ours() {
    settled r1 "$1" && ours r1 10.20.1.0/24 'eth0 eth1' && ours r1 198.51.102.0/24 eth2 &&
        ours r1 2001:db8:102::/48 eth2 && type_is r1 198.51.100.0/24 blackhole && type_is r1 198.51.101.0/24 unreachable &&
        type_is r1 2001:db8:100::/48 blackhole && [[ $(weights r1 10.20.1.0/24) != *=1* ]] &&
        [[ $(kernel_state r1 | grep -c '^route 100 ') == 2 ]]
}
wait_until 20 'everything is in place' all_of_ours fpm
kernel_state r1 >"$LAB/fpm.state"
say "$(grep -c ^route "$LAB/fpm.state") routes, $(grep -c ^object "$LAB/fpm.state") next-hop objects, weights of r2: $(weights r1 10.20.1.0/24)"
offload_stop r1

section 'Over gRPC alone'
# same_as_fpm: but for ids, all that is ours in the kernel.
same_as_fpm() { diff "$LAB/fpm.state" <(kernel_state r1); }
kept_start r1
offload_start r1 "$(northbound_alone "$TABLES")"
wait_until 20 'everything is in place' all_of_ours northbound
check 'the same is in the kernel as over FPM' same_as_fpm
check 'no route was touched on the way from one to the other' kept r1
offload_stop r1
offload r1 flush --config "$LAB/r1/frr-offload.toml" >/dev/null
check 'nothing of ours is left' test -z "$(kernel_state r1 | grep -e ^route -e ^object)"
offload_revive r1
wait_until 20 'made from nothing, everything is in place' all_of_ours northbound
check 'again the same as over FPM' same_as_fpm
check 'no event says that routes were adopted' not events_have adopted
check 'show routes says where it is from' shows r1 10.20.1.0/24 '.source == "northbound" and .protocol == "bgp" and .stale == false'
check 'FPM has had no replay' jq -e '.sources[] | select(.name == "fpm") | .resyncs == 0 and .state == "down"' <(offload r1 show status --json)
check 'traffic' reaches r1 10.20.1.1 10.10.1.1

section 'Changes come with the next round'
# zebra's walk of a table stops at fe80::/10 (docs/evidence.md), so the last of these is never said.
frr_configure r1 'ip route 198.51.110.0/24 10.30.1.1' 'ipv6 route 2001:db8:111::/48 fe80::ff:fe00:300 eth2' \
    'ipv6 route fec0:1::/48 fe80::ff:fe00:300 eth2' 'no ip route 198.51.103.0/24 10.10.1.99' \
    'no ip route 198.51.100.0/24 blackhole' 'ip route 198.51.100.0/24 10.10.1.99' 'no ip route 198.51.106.0/24 10.10.1.98' \
    'no ipv6 route 2001:db8:103::/48 2001:db8:10::99'
wait_until 15 'a new route' ours r1 198.51.110.0/24 eth2
wait_until 15 'a new IPv6 route' ours r1 2001:db8:111::/48 eth2
check 'but not one from fe80::/10 on, as documented' not_ours r1 fec0:1::/48
wait_until 15 'a withdrawn one is gone' not_ours r1 198.51.103.0/24
wait_until 15 'an IPv6 one too' not_ours r1 2001:db8:103::/48
wait_until 15 'a blackhole is a route' goes r1 198.51.100.0/24 '10.10.1.99%lan0'
wait_until 15 'a next hop less' goes r1 198.51.106.0/24 '10.10.1.99%lan0'
ipr r1 link set eth0 down
wait_until 30 'a link less' ours r1 10.20.1.0/24 eth1
ipr r1 link set eth0 up
wait_until 60 'and back' ours r1 10.20.1.0/24 'eth0 eth1'

section 'Two static routes of one prefix'
kept_start r1
frr_configure r1 'ip route 198.51.110.0/24 10.10.1.99 200'
wait_until 15 'the table can not be had, and that is told' source_is northbound '.state == "stale" and .stale > 5'
check 'doctor says why' finds r1 northbound-missed 'floating static'
check 'so do events' events_have table-not-polled 'floating static'
check 'show routes marks them' shows r1 10.20.1.0/24 '.stale and .kernel == "installed"'
check 'IPv6 is as ever' shows r1 2001:db8:20::/64 '.stale == false'
frr_configure r1 'ipv6 route 2001:db8:110::/48 fe80::ff:fe00:300 eth2'
wait_until 15 'and is asked for as ever' ours r1 2001:db8:110::/48 eth2
offload_stop r1
offload_start r1 "fpm.stale_time = \"8s\""$'\n'"$(northbound_alone "$TABLES")"
wait_until 20 'a daemon that starts meanwhile can not have it either' source_is northbound '.state == "stale"'
wait_until 40 'four rounds later, stale_time has passed' answers_over 12
check 'its routes are there' ours r1 10.20.1.0/24 'eth0 eth1'
frr_configure r1 'no ip route 198.51.110.0/24 10.10.1.99 200'
wait_until 15 'healed with the next round' source_is northbound '.state == "synced" and .stale == 0'
check 'doctor finds nothing any more' finds_nothing r1 northbound-missed
check 'no route left the kernel' kept r1

section 'Both: FPM goes first, and is audited'
kept_start r1
offload_stop r1
# Through a tee that can be stopped.
mkdir "$LAB/streams"
spawn r1/tee / "$LAB_SOURCE/fpm-tee" 2620 12620 "$LAB/streams"
offload_start r1 "fpm.listen = \"127.0.0.1:12620\""$'\n'"$GRPC"
wait_until 20 'the replay is over' settled r1 fpm
check 'show routes says FPM' shows r1 10.20.1.0/24 '.source == "fpm"'
wait_until 10 'a prefix that gRPC never says comes over FPM' ours r1 fec0:1::/48 eth2
frr_configure r1 'ip route 198.51.112.0/24 10.30.1.1' 'ip route 198.51.113.0/24 10.30.1.1'
wait_until 10 'a change comes at once' ours r1 198.51.113.0/24 eth2
count=$(answers)
wait_until 40 'three rounds later' answers_over $((count + 6))
check 'they say the same' source_is northbound '.differences == 0 and .state == "synced"'
check 'doctor finds nothing' finds_nothing r1 northbound-differs
signal r1/tee STOP
frr_configure r1 'ip route 198.51.114.0/24 10.30.1.1' 'no ip route 198.51.112.0/24 10.30.1.1' \
    'no ip route 198.51.113.0/24 10.30.1.1' 'ip route 198.51.113.0/24 10.10.1.99'
wait_until 30 'FPM stalls: what it has not said is told' source_is northbound '.differences == 3'
check 'doctor names one' finds r1 northbound-differs '198.51.112.0/24 table 254'
check 'and shows how FRR shows it' vtysh r1 "$(fix_of r1 northbound-differs | sed "s/.*'\(.*\)'.*/\1/")"
check 'so do events' events_have northbound-differs '198.51.112.0/24'
check 'FPM is what counts' ours r1 198.51.113.0/24 eth2
check 'no route left the kernel' kept r1
signal r1/tee CONT
wait_until 30 'FPM goes on, and they say the same' source_is northbound '.differences == 0'
check 'doctor finds nothing any more' finds_nothing r1 northbound-differs
check 'what was lost has come' goes r1 198.51.113.0/24 '10.10.1.99%lan0'
kept_start r1
frr_configure r1 'no fpm address'
wait_until 15 'without FPM the routes are those of northbound' shows r1 10.20.1.0/24 '.source == "northbound" and .stale == false'
frr_configure r1 'fpm address 127.0.0.1 port 2620'
wait_until 30 'and FPM goes first again' shows r1 10.20.1.0/24 '.source == "fpm" and .stale == false'
wait_until 30 'everything is in place' settled r1 fpm
check 'no route left the kernel' kept r1

lab_passed
