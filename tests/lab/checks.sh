# shellcheck shell=bash disable=SC2153
# What several labs and the demo share: the topology of three routers, and how to ask the kernel
# whether a route is really ours. Sourced after lib.sh.
#
#                 eth0 --- eth0          lan0 10.20.1.0/24, 2001:db8:20::/64
#   lan0 -- r1    eth1 --- eth1    r2 -- AS 65002, also announces a default route
#     AS 65001    eth2 --- eth0    r3 -- AS 65003, also announces a default route
#   10.10.1.0/24                         lan0 10.30.1.0/24, 2001:db8:30::/64
#
# r1 is the router of frr-offload. No link has an IPv4 address. r1.eth0 has the MAC
# 02:00:00:00:01:00, r2.eth1 02:00:00:00:02:01 and so on, which makes fe80::ff:fe00:201.
#
# zebra's own routes forward as well in `beside`, so a ping proves nothing. Every check of a route
# therefore looks at what the kernel prefers: protocol 1, metric 10, next hops in 169.254.0.0/16
# whose neighbour entry has the MAC that the device at the other end really has.

# three_routers [DAEMONS [LEAF.CONF]]: built and started; r1 runs these files, the others plain ones.
three_routers() {
    router r1 r2 r3
    link r1 eth0 02:00:00:00:01:00 r2 eth0 02:00:00:00:02:00
    link r1 eth1 02:00:00:00:01:01 r2 eth1 02:00:00:00:02:01
    link r1 eth2 02:00:00:00:01:02 r3 eth0 02:00:00:00:03:00
    second_spine >"$LAB/r3.conf"
    frr_start r1 "${1:-$FRR_CONF/daemons.beside}" "${2:-$FRR_CONF/leaf.conf}"
    frr_start r2 "$FRR_CONF/daemons.beside" "$FRR_CONF/spine.conf"
    frr_start r3 "$FRR_CONF/daemons.beside" "$LAB/r3.conf"
    ok "FRR runs on r1 (leaf, AS 65001), r2 (AS 65002, two links to r1) and r3 (AS 65003)"
}

# spine.conf with the numbers of another spine, on one link.
second_spine() {
    sed -e 's/spine1/spine2/; s/65002/65003/; s/10\.0\.0\.2/10.0.0.3/; s/2001:db8::2/2001:db8::3/' \
        -e 's/10\.20\./10.30./; s/2001:db8:20:/2001:db8:30:/; / eth1 /d' "$FRR_CONF/spine.conf"
}

# steady_r1 [SETUP]: three_routers in that set-up with our daemon on r1, everything in place. Without
# SETUP it is takeover, or beside where FRR can't do that. $SETUP says which. $OFFLOAD_CONF is added
# to the daemon's configuration.
steady_r1() {
    SETUP=${1:-takeover}
    [[ $SETUP != takeover || $(frr_major) -ge 10 ]] || SETUP=beside
    three_routers "$FRR_CONF/daemons.$SETUP"
    offload_start r1 "setup = \"$SETUP\""$'\n'"${OFFLOAD_CONF:-}"
    wait_until 60 'BGP has converged' bgp_converged
    wait_until 20 'the replay is over' synced r1
    wait_until 20 "everything is in place, set-up $SETUP" steady
}
# Nothing left to do, nothing stale, and the routes are those they should be.
steady() {
    all_installed r1 && nothing_stale r1 &&
        ours r1 10.20.1.0/24 'eth0 eth1' && ours r1 10.30.1.0/24 eth2 && ours r1 0.0.0.0/0 'eth0 eth1 eth2' &&
        ours r1 2001:db8:20::/64 'eth0 eth1' && ours r1 2001:db8:30::/64 eth2
}

# The networks of r2 and r3 find each other through r1 whatever BGP does: only r1 is tested. With
# protocol 1, so that FRR over there doesn't see these routes.
static_ways() {
    ipr r2 route add 10.30.1.0/24 via inet6 fe80::ff:fe00:100 dev eth0 proto 1 metric 5
    ipr r2 -6 route add 2001:db8:30::/64 via fe80::ff:fe00:100 dev eth0 proto 1 metric 5
    ipr r3 route add 10.20.1.0/24 via inet6 fe80::ff:fe00:102 dev eth0 proto 1 metric 5
    ipr r3 -6 route add 2001:db8:20::/64 via fe80::ff:fe00:102 dev eth0 proto 1 metric 5
}

# All of BGP is there: r1 has both families over all three links, and the others have r1's.
bgp_converged() {
    frr_uses r1 10.20.1.0/24 'eth0 eth1' && frr_uses r1 10.30.1.0/24 eth2 &&
        frr_uses r1 0.0.0.0/0 'eth0 eth1 eth2' &&
        frr_uses r1 2001:db8:20::/64 'eth0 eth1' && frr_uses r1 2001:db8:30::/64 eth2 &&
        frr_uses r2 10.10.1.0/24 'eth0 eth1' && frr_uses r2 10.30.1.0/24 'eth0 eth1' &&
        frr_uses r3 10.10.1.0/24 eth0 && frr_uses r3 10.20.1.0/24 eth0 &&
        frr_uses r3 2001:db8:20::/64 eth0
}

# frr_uses ROUTER PREFIX 'DEV...': the selected route of zebra goes over exactly these devices.
frr_uses() {
    local family=ip devices
    [[ $2 != *:* ]] || family=ipv6
    devices=$(vtysh "$1" "show $family route $2 json" |
        jq -r '[.[][] | select(.selected) | .nexthops[] | select(.active and .fib) | .interfaceName] | sort | join(" ")')
    [[ $devices == "$3" ]] || { echo "FRR on $1 has $2 over '$devices', not over '$3'"; return 1; }
}

# ---- the kernel ----------------------------------------------------------------------------------

# preferred ROUTER PREFIX: the route of that prefix which the kernel looks up, as JSON: the one with
# the lowest metric. (Not `ip -6 route get fibmatch`: with next-hop objects it names any route that
# shares the object, seen on Linux 6.18.) -N: protocols and types as numbers, whatever /etc says.
preferred() {
    local family=-4
    [[ $2 != *:* ]] || family=-6
    ipr "$1" "$family" -N -j route show exact "$2" | jq -ce 'min_by(.metric // 0)'
}

# ours ROUTER PREFIX 'DEV...': what the kernel prefers for PREFIX is ours, and goes over exactly
# these devices, each with the right MAC. IPv4 by 169.254.x.x onlink, IPv6 by the link-local itself.
ours() {
    local router=$1 prefix=$2 devices=$3 family=-4 route protocol metric nhid hops got dev via onlink
    [[ $prefix != *:* ]] || family=-6
    # One jq for all of it: to start one costs most of a second in a VM.
    route=$(ipr "$router" "$family" -N -j route show exact "$prefix" | jq -r 'min_by(.metric // 0) | select(.) |
        "\(.protocol) \(.metric) \(.nhid // "-")", ('"$HOPS)")
    { read -r protocol metric nhid && hops=$(cat); } <<<"$route" || { echo "$router: no route $prefix"; return 1; }
    [[ $protocol == 1 && $metric == 10 ]] || { echo "$router: not ours: $(preferred "$router" "$prefix")"; return 1; }
    # 0xB8000000 to 0xBFFFFFFF
    [[ $nhid == - ]] || ((nhid >= 3087007744 && nhid <= 3221225471)) ||
        { echo "$router: next-hop id out of our range: $(preferred "$router" "$prefix")"; return 1; }
    got=$(cut -d' ' -f1 <<<"$hops" | sort | tr '\n' ' ')
    [[ ${got% } == "$devices" ]] ||
        { echo "$router: $prefix over '${got% }', not '$devices': $(preferred "$router" "$prefix")"; return 1; }
    while read -r dev via onlink; do
        if [[ $prefix == *:* ]]; then
            # shellcheck disable=SC2086  # router and device
            [[ $via == "$(link_local ${PEER["$router $dev"]})" ]] ||
                { echo "$router: $prefix via $via dev $dev, which is not its neighbour"; return 1; }
            continue
        fi
        [[ $via == 169.254.* ]] || { echo "$router: $prefix via $via, not 169.254.x.x"; return 1; }
        [[ $onlink == onlink ]] || { echo "$router: $prefix via $via is not onlink"; return 1; }
        neighbour_right "$router" "$dev" "$via" || return 1
    done <<<"$hops"
}

# hops ROUTE: "dev via onlink" a line, for a route with one next hop or several.
hops() { jq -r "$HOPS" <<<"$1"; }
HOPS='(.nexthops // [.])[] | "\(.dev) \(.gateway // .via.host) \(if .flags | index("onlink") then "onlink" else "-" end)"'

# announce_weights: r2 weights its links one to three, in both families.
announce_weights() {
    frr_configure r2 \
        'route-map SLOW permit 10' 'set extcommunity bandwidth 1000' 'exit' \
        'route-map FAST permit 10' 'set extcommunity bandwidth 3000' 'exit' \
        'router bgp 65002' \
        'address-family ipv4 unicast' 'neighbor eth0 route-map SLOW out' 'neighbor eth1 route-map FAST out' 'exit' \
        'address-family ipv6 unicast' 'neighbor eth0 route-map SLOW out' 'neighbor eth1 route-map FAST out'
}

# weights ROUTER PREFIX: "eth0=1 eth1=3", as the kernel has them.
weights() {
    preferred "$1" "$2" | jq -r '[(.nexthops // [.])[] | "\(.dev)=\(.weight // 1)"] | sort | join(" ")'
}

# neighbour_right ROUTER DEV ADDRESS: the entry is permanent and has the MAC of the real peer.
neighbour_right() {
    local entry peer=${PEER["$1 $2"]} want
    # shellcheck disable=SC2086  # router and device
    want=$(mac $peer)
    entry=$(ipr "$1" neigh show "$3" dev "$2")
    [[ $entry == *"lladdr $want "*PERMANENT* ]] ||
        { echo "$1: neighbour $3 dev $2 should be $want and permanent, is: ${entry:-absent}"; return 1; }
}

# not_ours ROUTER PREFIX: there is no route of ours (of others perhaps).
not_ours() {
    local family=-4 routes
    [[ $2 != *:* ]] || family=-6
    routes=$(ipr "$1" "$family" -N route show exact "$2" proto 1)
    [[ -z $routes ]] || { echo "$1: still there: $routes"; return 1; }
}

# type_is ROUTER PREFIX blackhole|unreachable|prohibit: ours, preferred, and of that type.
type_is() {
    local number
    case $3 in blackhole) number=6 ;; unreachable) number=7 ;; prohibit) number=8 ;; esac
    preferred "$1" "$2" | jq -e --arg type "$number" '.protocol == "1" and .metric == 10 and .type == $type' ||
        { echo "$1: $2 is no $3 route of ours: $(preferred "$1" "$2")"; return 1; }
}

# takes_our_route ROUTER ADDRESS: `ip route get` itself says that a packet goes to our 169.254.x.x.
takes_our_route() {
    local answer
    answer=$(ipr "$1" route get "$2") || return 1
    [[ $answer == *" via 169.254."* ]] || { echo "$1: $answer"; return 1; }
}

# ---- our daemon ------------------------------------------------------------------------------------

# synced ROUTER: zebra's stream is connected and its replay is over.
synced() {
    offload "$1" show status --json | jq -e '[.sources[] | select(.state == "synced")] | length > 0'
}

# asked ROUTER PATH: what the daemon answers there, over HTTP without a client for it.
asked() {
    # shellcheck disable=SC2016 # "$0" is for the inner shell
    on "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/9620; printf "GET %s HTTP/1.0\r\n\r\n" "$0" >&3; cat <&3' "$2"
}
is_ready() { [[ $(asked "$1" /readyz) == 'HTTP/1.0 200 OK'* ]]; }

# metrics_agree ROUTER: the endpoint has the numbers of show status, and counts the kernel's routes.
metrics_agree() {
    local status scraped different
    status=$(offload "$1" show status --json | jq -r '
        (.sources[] | "source_routes{source=\"\(.name)\"} \(.routes)", "source_stale_routes{source=\"\(.name)\"} \(.stale)",
            "source_frames_total{source=\"\(.name)\"} \(.frames)", "source_resyncs_total{source=\"\(.name)\"} \(.resyncs)",
            "source_state{source=\"\(.name)\",state=\"\(.state)\"} 1"),
        (.kernel | "kernel_routes{state=\"installed\"} \(.installed)", "kernel_routes{state=\"pending\"} \(.pending)",
            "kernel_routes{state=\"failed\"} \(.failed)"),
        (.feedback | "feedback_replies_total{told=\"offloaded\"} \(.sent)", "feedback_replies_total{told=\"failed\"} \(.failed_sent)"),
        "hardware_routes{state=\"off\"} \(.kernel.wanted)"')
    scraped=$(asked "$1" /metrics | sed -n 's/^frr_offload_//p')
    different=$(grep -vxFf <(printf '%s\n' "$scraped") <<<"$status") || true
    [[ -n $scraped && -z $different ]] || { echo "show status has, and metrics have not: $different"; return 1; }
}

# all_installed ROUTER: nothing left to do, and something was done.
all_installed() {
    offload "$1" show status --json |
        jq -e '.kernel | .wanted > 0 and .installed == .wanted and .pending == 0 and .failed == 0'
}

# nothing_stale ROUTER: zebra has repeated everything that it had before.
nothing_stale() { offload "$1" show status --json | jq -e '.sources | length > 0 and all(.[]; .state == "synced" and .stale == 0)'; }

# shows ROUTER PREFIX JQ: our own table has one route of that prefix, of which the condition holds.
shows() {
    local routes
    routes=$(offload "$1" show routes "$2" --json) || return 1
    jq -e "length == 1 and (.[0] | $3)" <<<"$routes" >/dev/null ||
        { echo "$1: show routes $2: $(jq -c . <<<"$routes"), expected $3"; return 1; }
}

# ---- doctor ----------------------------------------------------------------------------------------

# It ends with 1 if anything is an error.
findings() { offload "$1" doctor --json || true; }

# finds ROUTER ID [TEXT]: one finding of that kind, which says this.
finds() {
    findings "$1" | jq -e --arg id "$2" --arg text "${3:-}" \
        '[.[] | select(.id == $id)] | length == 1 and (.[0].finding | contains($text))' >/dev/null ||
        { offload "$1" doctor; return 1; }
}

# finds_nothing ROUTER [ID]: none of that kind, or nothing but infos.
finds_nothing() {
    findings "$1" | jq -e --arg id "${2:-}" 'all(.[]; if $id == "" then .severity == "info" else .id != $id end)' >/dev/null ||
        { offload "$1" doctor; return 1; }
}

# fix_of ROUTER ID: the command that mends it, as doctor prints it for people, too.
fix_of() { findings "$1" | jq -er --arg id "$2" '[.[] | select(.id == $id)][0].fix'; }

# mends ROUTER ID: that command is run there, and the finding goes.
mends() {
    local fix
    fix=$(fix_of "$1" "$2")
    on "$1" sh -c "$fix" >"$LAB/$1/log/mend" 2>&1 || { cat "$LAB/$1/log/mend"; fail "$2: it does not run: $fix"; }
    wait_until 20 "mended: ${fix:0:90}" finds_nothing "$1" "$2"
}

# mends_daemons ROUTER ID FRR.CONF: the same for a command that changes /etc/frr/daemons and restarts FRR, which here
# no systemd does.
mends_daemons() {
    local fix rest
    fix=$(fix_of "$1" "$2")
    rest=${fix#*systemctl restart frr}
    on "$1" sh -c "${fix%% && systemctl restart frr*}"
    frr_stop "$1"
    cp "$LAB/$1/etc/daemons" "$LAB/daemons.mended"
    frr_start "$1" "$LAB/daemons.mended" "$3"
    [[ -z $rest ]] || on "$1" sh -c "${rest# && }" >/dev/null
    wait_until 60 "mended: ${fix:0:90}" finds_nothing "$1" "$2"
}

# ---- traffic -----------------------------------------------------------------------------------------

# reaches ROUTER ADDRESS [SOURCE]: two pings go there and back.
reaches() { on "$1" ping -n -q -c 2 -i 0.2 -W 1 ${3:+-I "$3"} "$2"; }

# ping_start NAME ROUTER ADDRESS SOURCE: 50 a second in the background, until ping_lost.
ping_start() { spawn "$2/$1" / ping -n -q -i 0.02 -I "$4" "$3"; }

# ping_lost NAME ROUTER: stop it, print how many of its packets were lost.
ping_lost() {
    signal "$2/$1" INT
    # It says how many it sent, unless it is ended before.
    end_slowly "$2/$1"
    sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' "$LAB/$2/log/$1" |
        awk '{ print $1 - $2; found = 1 } END { exit !found }'
}

# no_loss ROUTER ADDRESS SOURCE: 100 packets, 100 answers.
no_loss() {
    local output
    output=$(on "$1" ping -n -q -c 100 -i 0.01 -W 1 -I "$3" "$2") || true
    [[ $output == *", 0% packet loss"* ]] || { echo "$output"; return 1; }
}

# stream_start NAME ROUTER ADDRESS SOURCE: the same, about 800 a second there and as many back, with a
# line for each answer, so that it can be said which were lost and when: for what must not lose any.
# (ping sends slower, 100 a second, while no answers come: the first lost packet counts, a long outage
# shows as fewer than it cost.)
stream_start() { spawn "$2/$1" / ping -n -D -i 0.001 -W 1 -I "$4" "$3"; }

# stream_flows NAME ROUTER: answers come at this moment.
stream_flows() {
    local log=$LAB/$2/log/$1 before
    before=$(wc -l <"$log")
    sleep 0.1
    (($(wc -l <"$log") > before))
}

# stream_lost NAME ROUTER: stop it; print how many were lost, and the gaps as "n packets at TIME".
# What was on its way when it was stopped does not count; but the stream must flow until then.
stream_lost() {
    stream_flows "$1" "$2" || echo "$1: nothing arrives any more" >&2
    signal "$2/$1" INT
    # It says how many it sent, unless it is ended before.
    end_slowly "$2/$1"
    awk -v FS='[][ =]' '
        /icmp_seq=/ {
            for (i = 1; i < NF; i++) if ($i == "icmp_seq") number = $(i + 1)
            # The number has 16 bits; a packet that overtook another is no loss.
            while (number < last - 32768) number += 65536
            if (number > last + 1) { lost += number - last - 1; printf "%d packets at %s\n", number - last - 1, $2 > "/dev/stderr" }
            else if (number <= last) { lost--; next }
            last = number; seen++
        }
        / packets transmitted, / { sent = $1 }
        # More than a moment of silence at the end.
        END { if (sent - last > 40) lost += sent - last; if (!seen) lost = sent + 1; print lost + 0 }
    ' "$LAB/$2/log/$1"
}

# Two streams from r3 through r1 to r2, IPv4 and IPv6.
crossing_start() {
    stream_start crossing4 r3 10.20.1.1 10.30.1.1
    stream_start crossing6 r3 2001:db8:20::1 2001:db8:30::1
    wait_until 5 'packets flow through r1' crossing_flows
}
crossing_flows() { stream_flows crossing4 r3 && stream_flows crossing6 r3; }

# not_one_lost 'what': ends them; the lab fails if a packet was lost.
not_one_lost() {
    local name lost bad=0
    for name in crossing4 crossing6; do
        lost=$(stream_lost "$name" r3)
        say "$name: $lost lost of $(sed -n 's/ packets transmitted.*//p' "$LAB/r3/log/$name")"
        [[ $lost == 0 ]] || bad=1
    done
    check "$1" test "$bad" = 0
}
