# shellcheck shell=bash
# What is to be true of the lab: asked of the kernels, of FRR and of frr-offload. Sourced by docker/lab.

# wait_until SECONDS 'what' COMMAND...: it succeeds in time, or all ends; its last words say why.
wait_until() {
    local seconds=$1 what=$2 begin=$SECONDS why
    shift 2
    until why=$("$@" 2>&1); do
        ((SECONDS - begin <= seconds)) || fail "not within $seconds s: $what"$'\n'"        ${why//$'\n'/$'\n'        }"
        sleep 0.2
    done
    ok "$what ($((SECONDS - begin)) s)"
}
# check 'what' COMMAND...
check() {
    local what=$1 why
    shift
    why=$("$@" 2>&1) || fail "$what"$'\n'"        ${why//$'\n'/$'\n'        }"
    ok "$what"
}
# engine_apart: an engine of ours asks neither the host's containerd nor its systemd.
engine_apart() {
    local child
    child=$(cut -d' ' -f1 "/proc/$OURS/task/$OURS/children")
    grep -q ' / /run .* - tmpfs ' "/proc/$child/mountinfo" && [[ ! -e /proc/$child/root/run/systemd ]] &&
        [[ $(docker info --format '{{.CgroupDriver}}') == cgroupfs ]]
}
engine_gone() { [[ ! -e $ENGINE && -z $(find /sys/fs/cgroup -name "${ENGINE##*/}") ]]; }

fail() {
    printf '  %sFAIL%s  %s\n' "$RED" "$PLAIN" "$*" >&2
    exit 1
}

# ours ROUTER PREFIX 'PORT...': the route that the kernel prefers is ours, over exactly these ports, by
# 169.254.x.x onlink. Routes of zebra are there as well, and would forward too, so a ping proves nothing.
ours() {
    local route ports
    route=$(on "$1" ip -o route show exact "$2" |
        awk '{ metric = 0; for (i = 1; i < NF; i++) if ($i == "metric") metric = $(i + 1); print metric, $0 }' | sort -n | head -n 1)
    ports=$(grep -o 'via 169\.254\.[0-9.]* dev [a-z0-9]*' <<<"$route" | cut -d' ' -f4 | sort | paste -sd' ')
    [[ $route == "10 "*" proto redirect "*onlink* && $ports == "$3" ]] ||
        { echo "$1: $2 should be ours over '$3'; the kernel prefers: ${route:-nothing}"; return 1; }
}

# Each router's way to everything, as it is when nothing is broken.
routes_right() {
    case $1 in
    leaf1) ours leaf1 10.2.0.0/24 'eth0 eth1' && ours leaf1 10.0.0.2/32 'eth0 eth1' && ours leaf1 10.0.0.11/32 eth0 && ours leaf1 10.0.0.12/32 eth1 ;;
    leaf2) ours leaf2 10.1.0.0/24 'eth0 eth1' && ours leaf2 10.0.0.1/32 'eth0 eth1' && ours leaf2 10.0.0.11/32 eth0 && ours leaf2 10.0.0.12/32 eth1 ;;
    spine1) ours spine1 10.1.0.0/24 eth0 && ours spine1 10.2.0.0/24 eth1 && ours spine1 10.0.0.12/32 'eth0 eth1' ;;
    spine2) ours spine2 10.1.0.0/24 eth0 && ours spine2 10.2.0.0/24 eth1 && ours spine2 10.0.0.11/32 'eth0 eth1' ;;
    esac
}
# What frr-offload itself says: replay over, nothing stale.
is_ready() {
    local why
    why=$(on "$1-offload" /lab/ready) || { echo "$1: frr-offload is not ready: ${why##*$'\r'}"; return 1; }
}
router_right() { routes_right "$1" && is_ready "$1"; }
all_right() {
    local router
    for router in "${ROUTERS[@]}"; do router_right "$router" || return 1; done
}

all_healthy() {
    local service left=()
    for service in "${!CONTAINER[@]}"; do
        [[ $service != *-* || $(docker inspect -f '{{.State.Health.Status}}' "${CONTAINER[$service]}") == healthy ]] || left+=("$service")
    done
    [[ ${#left[@]} == 0 ]] || { echo "not healthy: ${left[*]}"; return 1; }
}

# No link between routers has an IPv4 address.
no_ipv4_between() {
    local router addresses
    for router in "${ROUTERS[@]}"; do
        addresses=$(for port in eth0 eth1; do on "$router" ip -4 -o address show dev "$port"; done)
        [[ -z $addresses ]] || { echo "$router: $addresses"; return 1; }
    done
}

# all_pairs: every host and router reaches every other, by the addresses that BGP tells.
all_pairs() {
    local -A address=([host1]=10.1.0.10 [host2]=10.2.0.10 [leaf1-frr]=10.0.0.1 [leaf2-frr]=10.0.0.2 [spine1-frr]=10.0.0.11 [spine2-frr]=10.0.0.12)
    local from lost
    for from in "${!address[@]}"; do
        # shellcheck disable=SC2016  # for the shell over there
        lost=$(on "$from" sh -c 'for to; do [ "$to" = "$0" ] || ping -n -q -c 1 -W 2 -I "$0" "$to" >/dev/null || echo "$to"; done' \
            "${address[$from]}" "${address[@]}" | paste -sd' ')
        [[ -z $lost ]] || { echo "$from does not reach $lost"; return 1; }
    done
}

# ---- a flow from host1 to host2, 50 packets a second ------------------------------------------------

flow_start() {
    FLOW=$(mktemp)
    # shellcheck disable=SC2016
    on host1 sh -c 'echo $$ >/tmp/flow; exec ping -n -q -i 0.02 -W 1 10.2.0.10' >"$FLOW" 2>&1 &
    FLOW_CLIENT=$!
    wait_until 5 'packets flow from host1 to host2, one every 20 ms' flow_port
}
# The port by which it leaves leaf1: the one whose counter moves.
flow_port() {
    # shellcheck disable=SC2016
    on leaf1 sh -c 'cd /sys/class/net
        a=$(cat eth0/statistics/tx_packets) b=$(cat eth1/statistics/tx_packets)
        sleep 0.5
        a=$(($(cat eth0/statistics/tx_packets) - a)) b=$(($(cat eth1/statistics/tx_packets) - b))
        [ "$a" -gt 15 ] && [ "$a" -gt "$b" ] && echo eth0 || { [ "$b" -gt 15 ] && echo eth1; }'
}
# The spine by which it goes, and the port of a leaf that is left without it.
spine_in_use() { [[ $(flow_port) == eth0 ]] && echo 'spine1 eth1' || echo 'spine2 eth0'; }
# flow_end WORDS MOST: it lost at most so many packets.
flow_end() {
    local sent received
    # A last answer has time to arrive.
    sleep 0.2
    # shellcheck disable=SC2016
    on host1 sh -c 'kill -INT "$(cat /tmp/flow)"'
    wait "$FLOW_CLIENT" || true
    read -r sent received < <(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' "$FLOW") || fail "the flow from host1 ended: $(cat "$FLOW")"
    rm -f "$FLOW"
    ((sent - received <= $2)) || fail "$1: $((sent - received)) of $sent packets lost, at most $2 may be"
    ok "$1: $((sent - received)) of $sent packets lost (at most $2 may be)"
}
