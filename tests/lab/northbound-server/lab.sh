#!/usr/bin/env bash
# zebra's gRPC server under what may befall its client: an answer that is given up ends it for good, so it has to be
# alive after each of these. The daemon is stopped in the midst of answers and between them, and told to end while one is
# on its way; zebra is killed while it answers. Set-up takeover; r2 announces ten thousand routes, so that an answer takes
# zebra most of a second.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"
. "$LAB_SOURCE/northbound.sh"

ROUTES=10000
TABLES=25  # beside the main one, so that a round has 52 answers

lab_init northbound-server
SETUP=takeover northbound_routers
# Somebody else's routes on r2, which BGP announces.
for ((i = 0; i < ROUTES; i++)); do echo "route add blackhole 100.64.$((i / 256)).$((i % 256))/32 proto 99"; done >"$LAB/many"
ipr r2 -batch "$LAB/many"
frr_configure r2 'router bgp 65002' 'address-family ipv4 unicast' 'redistribute kernel'
map='5000 = 254' statics=()
for ((table = 101; table <= 100 + TABLES; table++)); do
    map+=", $table = $table"
    statics+=("ip route 198.51.100.0/24 10.10.1.99 table $table" "ipv6 route 2001:db8:100::/48 2001:db8:10::99 table $table")
done
frr_configure r1 "${statics[@]}"
# For zebra after its end, too.
vtysh r1 'write memory' >/dev/null
CONFIG=$(northbound_alone "setup = \"takeover\"
fpm.table_map = { $map }
log.filter = \"info,frr_offload::source::northbound=debug\"")

# all_there: what BGP and static routes say is in the kernel.
all_there() {
    [[ $(ipr r1 route show proto 1 | grep -c '^100\.64\.') == "$ROUTES" ]] && ours r1 100.64.0.1 'eth0 eth1' &&
        ours r1 10.30.1.0/24 eth2 && [[ $(ipr r1 route show table all proto 1 | grep -c '^198\.51\.100\.0') == "$TABLES" ]] &&
        [[ $(ipr r1 -6 route show table all proto 1 | grep -c '^2001:db8:100::') == "$TABLES" ]]
}
# said PATTERN: so many lines of the daemon's log have it.
said() { grep -c -- "$1" "$LAB/r1/log/frr-offload" || true; }
said_more() { (($(said "$1") > $2)); }
LARGE='northbound: asks .*table=5000 family=ipv4'
# start_into_answer: the daemon is started, and this is back while zebra works at the large table.
start_into_answer() {
    local count
    count=$(said "$LARGE")
    offload_spawn r1 "$CONFIG"
    until said_more "$LARGE" "$count"; do sleep 0.02; done
}
# is_awaited: that answer has not come yet.
is_awaited() { grep 'northbound: asks' "$LAB/r1/log/frr-offload" | tail -n 1 | grep "$LARGE"; }

offload_start r1 "$CONFIG"
wait_until 120 "$ROUTES routes of BGP, and $TABLES tables more" all_there
wait_until 20 'everything is in place' settled r1 northbound
check 'doctor finds nothing of northbound' finds_nothing r1 northbound-missed

section 'Stopped again and again during a round'
before=$(answers) over=$(said 'round is over') stops=0
quiet_wait 60 r1/frr-offload said_more 'northbound: asks .*table=101 family=ipv4' "$(said 'northbound: asks .*table=101 family=ipv4')"
pid=${PID[r1/frr-offload]}
while (($(said 'round is over') == over && stops < 20000)); do
    kill -CONT "$pid"
    # A moment for itself, which is about an answer of a small table.
    for ((i = 0; i < 200; i++)); do :; done
    kill -STOP "$pid"
    stops=$((stops + 1))
done
kill -CONT "$pid"
say "stopped $stops times in $(($(answers) - before)) answers"
check 'it was stopped fifty times' test "$stops" -ge 50
check 'and got all of the 52 answers' test "$(($(answers) - before))" = 52
check 'nothing was missed' settled r1 northbound

section 'Told to end while zebra answers'
kept_start r1
end_slowly r1/frr-offload
start_into_answer
signal r1/frr-offload TERM
check 'the answer is on its way' is_awaited
end_slowly r1/frr-offload
check 'it asked for nothing more' is_awaited
never 'and did not give up the answer' grep 'has not finished its answer' "$LAB/r1/log/frr-offload"

section 'Stopped for long while zebra answers'
start_into_answer
signal r1/frr-offload STOP
check 'the answer is on its way' is_awaited
sleep 5
signal r1/frr-offload CONT
offload_ready r1
wait_until 30 'all is in place' settled r1 northbound
wait_until 5 'zebra has answered all' source_is northbound '.frames == 52'

section 'zebra is killed while it answers'
offload_stop r1
watchfrr_start r1
old=${PID[r1/zebra]}
start_into_answer
kill_hard r1/zebra
check 'the answer was on its way' is_awaited
offload_ready r1
wait_until 10 'the daemon has noticed' events_have source-lost
check 'the routes are there' all_there
wait_until 60 'watchfrr has started it again' frr_adopt r1 zebra "$old"
wait_until 120 'northbound answers again' source_is northbound '.state == "synced"'
wait_until 60 'BGP has told it all again' source_is northbound '.state == "synced" and .stale == 0'
watchfrr_stop r1
check 'all is there' all_there
check 'no route left the kernel since the first stop' kept r1

lab_passed
