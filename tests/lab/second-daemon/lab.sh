#!/usr/bin/env bash
# One daemon a network namespace, and its end.
#
# A second one in the same namespace would fight over the same routes: it is refused, and the first
# does not notice; in another namespace it runs. SIGTERM ends a daemon in bounded time, also while it
# has a large table to write, and leaves the kernel as it is; with on_exit = "flush" nothing of ours
# is left.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init second-daemon
steady_r1 beside

section 'A second one'
cat >"$LAB/second.toml" <<EOF2
fpm.listen = "127.0.0.1:2630"
admin.socket = "/run/second/admin.sock"
EOF2
refused() {
    local output code=0
    output=$(on r1 timeout 10 frr-offload run --config "$LAB/second.toml" 2>&1) || code=$?
    [[ $code != 0 && $code != 124 && $output == *"another frr-offload runs in this network namespace"* ]] ||
        { echo "exit code $code: $output"; return 1; }
}
check 'is refused in the same namespace, and says why' refused
check 'the first has not noticed' steady
offload_start r2
ok 'in another namespace it runs'
offload_stop r2

section 'SIGTERM'
# bounded SECONDS: the end of r1's daemon takes no longer; its exit code is not ours to see, its log is.
bounded() {
    local begin=${EPOCHREALTIME/./}
    signal r1/frr-offload TERM
    while alive r1/frr-offload; do
        ((${EPOCHREALTIME/./} - begin < $1 * 1000000)) || { echo "still there after $1 s"; return 1; }
        sleep 0.05
    done
    tail -n 1 "$LAB/r1/log/frr-offload" | grep -q ' ended$'
}
fib() { ipr r1 -N -j route show proto 1 | jq -cS 'sort_by(.dst)' && ipr r1 -N -j -6 route show proto 1 | jq -cS 'sort_by(.dst)'; }
before=$(fib)
check 'ends it within 5 s' bounded 5
check 'its routes stay as they are' test "$(fib)" = "$before"
never 'its socket is gone' test -S "$LAB/r1/run/frr-offload/admin.sock"

section 'SIGTERM with 200,000 routes to write'
if offload r1 replay --help | grep -q -- --generate; then
    frr_stop r1
    offload_start r1
    spawn r1/replay / "$LAB/bin/frr-offload" replay --generate 200000 --hold --to 127.0.0.1:2620
    some() { offload r1 show status --json | jq -e '.kernel.wanted > 1000'; }
    wait_until 20 'the table comes in' some
    check 'ends it within 15 s' bounded 15
    end r1/replay
else
    say 'this build has no replay --generate'
fi

section 'on_exit = "flush"'
offload_start r1 'kernel.on_exit = "flush"'
[[ -n ${PID[r1/zebra]:-} ]] || frr_start r1 "$FRR_CONF/daemons.beside" "$FRR_CONF/leaf.conf"
wait_until 60 'everything is in place' steady
check 'SIGTERM ends it within 15 s' bounded 15
left() {
    local found
    found=$(ipr r1 -N route show table all proto 1; ipr r1 -N -6 route show table all proto 1
        ipr r1 -N nexthop show proto 1; ipr r1 -N neigh show nud permanent | grep 'proto 1$'
        ipr r1 neigh show | grep managed) || true
    [[ -z $found ]] || { echo "$found"; return 1; }
}
check 'nothing of ours is left' left
check "traffic, by zebra's own routes" reaches r1 10.20.1.1 10.10.1.1

lab_passed
