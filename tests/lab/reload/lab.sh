#!/usr/bin/env bash
# SIGHUP: the configuration is read again while the daemon runs.
#
# All the time packets cross r1, about 800 a second in each direction and family, and in `takeover`
# over our routes alone. What can change does (which needs no packet to be lost, not even where every
# IPv4 route gets its next hop in another form), what needs a restart is said and left, files of
# config.d count in the order of their names, and a faulty file leaves everything as it was.
# `frr-offload check` says the same of the same files.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init reload
steady_r1
static_ways
DROP_INS=$LAB/r1/config.d
mkdir "$DROP_INS"
LOG=$LAB/r1/log/frr-offload
put() { printf '%s\n' "${@:2}" >"$DROP_INS/$1"; }
same() { [[ $(fib) == "$before" ]]; }
fib() { ipr r1 -N -j route show proto 1 | jq -S 'sort_by(.dst)' && ipr r1 -N -j -6 route show proto 1 | jq -S 'sort_by(.dst)'; }

# reload 'what' EXPRESSION...: SIGHUP; each expression is found in what is logged from then on.
reload() {
    local what=$1
    shift
    logged=$(wc -l <"$LOG")
    signal r1/frr-offload HUP
    wait_until 5 "$what" said "$@"
}
said() {
    local text expression
    text=$(tail -n "+$((logged + 1))" "$LOG" | sed 's/\x1b\[[0-9;]*m//g')
    for expression in "$@"; do
        grep -qE -- "$expression" <<<"$text" || { printf 'not said: %s\n%s\n' "$expression" "$text"; return 1; }
    done
}
checks_well() { offload r1 check --config "$LAB/r1/frr-offload.toml"; }
# faults_as_checked: `check` refuses the files, and all that it says the daemon has said as well.
faults_as_checked() {
    local output code=0 line
    output=$(offload r1 check --config "$LAB/r1/frr-offload.toml" 2>&1) || code=$?
    [[ $code == 2 ]] || { echo "check ended with $code: $output"; return 1; }
    while read -r line; do
        [[ $line == *' in the configuration' ]] || grep -qF -- "reload: $line" <(tail -n "+$((logged + 1))" "$LOG") ||
            { echo "check says, the daemon does not: $line"; return 1; }
    done <<<"$output"
}
policy_is() { [[ $(on r1 sysctl -n net.ipv4.fib_multipath_hash_policy net.ipv6.fib_multipath_hash_policy | tr '\n' ' ') == "$1 $1 " ]]; }

# zebra's own entries for 169.254.0.1 would serve as well, and stay: without them ours come and go.
for dev in eth0 eth1 eth2; do ipr r1 neigh del 169.254.0.1 dev "$dev"; done
neighbours() { ipr r1 -4 neigh show proto 1; }
all_neighbours() { (($(neighbours | wc -l) == 3)) && steady; }
wait_until 10 'the neighbours of the 169.254 addresses are ours' all_neighbours

before=$(fib)
crossing_start

section 'What does not concern the routes'
put 10-all.toml '[kernel]' 'audit = "50s"' 'multipath_hash = "l3"' '[fpm]' 'stale_time = "170s"' 'replay_idle = "3s"' '[log]' 'filter = "debug"'
check 'check has nothing against it' checks_well
reload 'SIGHUP applies it, and names the keys' \
    'reload: applied keys="fpm.replay_idle, fpm.stale_time, kernel.multipath_hash, kernel.audit, log.filter"'
wait_until 5 'multipath_hash' policy_is 0
debug() { tail -n "+$((logged + 1))" "$LOG" | grep DEBUG; }
offload r1 resync >/dev/null
wait_until 5 'the log filter' debug
put 10-all.toml '[kernel]' 'audit = "2s"' 'multipath_hash = "l3"' '[fpm]' 'stale_time = "170s"' 'replay_idle = "3s"'
reload 'other values' 'keys="kernel.audit, log.filter"'
on r1 sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
wait_until 4 'audit: it is now within two seconds that a sysctl is put right' policy_is 0
check 'the kernel has the very same routes' same

section 'The order of config.d'
put 20-later.toml 'kernel.multipath_hash = "l4"'
put 15-between.toml 'kernel.multipath_hash = "inner"' 'kernel.audit = "40s"'
put 30-no-toml.conf 'kernel.multipath_hash = "l3"'
reload 'the last name wins, key by key' 'keys="kernel.multipath_hash, kernel.audit"'
wait_until 5 '20-later.toml counts' policy_is 1
order() { checks_well | grep -E 'ok: .*/frr-offload.toml, .*/10-all.toml, .*/15-between.toml, .*/20-later.toml$'; }
check 'check names the files in that order' order
rm "$DROP_INS/20-later.toml" "$DROP_INS/15-between.toml"
reload 'without it' 'keys="kernel.multipath_hash, kernel.audit"'
wait_until 5 '10-all.toml counts' policy_is 0
reload 'once more, with nothing changed' 'reload: nothing to apply'
check 'the kernel has the very same routes' same

section 'A faulty file'
put 50-bad.toml '[kernel]' 'audit = "soon"' 'multipath_hash = "l4"' 'on_exitt = "flush"' '[fpm]' 'stale_time = 5'
reload 'is refused, with file and key of every fault' \
    '50-bad.toml:2: kernel.audit: .*soon' '50-bad.toml:4: kernel.on_exitt: ' '50-bad.toml:6: fpm.stale_time: ' \
    'reload: the running configuration is kept'
check 'check says the same' faults_as_checked
put 50-bad.toml '[kernel' 'multipath_hash = "l4"'
reload 'no TOML' 'reload: .*/50-bad.toml:1: ' 'reload: the running configuration is kept'
check 'check says the same' faults_as_checked
rm "$DROP_INS/50-bad.toml"
mv "$LAB/r1/frr-offload.toml" "$LAB/r1/away"
reload 'the main file is gone' 'reload: .*/frr-offload.toml: no such file' 'reload: the running configuration is kept'
check 'check says the same' faults_as_checked
mv "$LAB/r1/away" "$LAB/r1/frr-offload.toml"
check 'nothing of it was applied' policy_is 0
check 'the kernel has the very same routes' same

section 'What needs a restart'
put 60-restart.toml 'fpm.listen = "127.0.0.1:2621"' 'kernel.metric = 12' 'kernel.multipath_hash = "l4"' \
    'admin.socket = "/run/other.sock"' 'admin.metrics = []' 'log.format = "json"'
check 'check has nothing against it' checks_well
left() { printf 'this key needs a restart and is left as it was key="%s"' "$1"; }
reload 'is said, and the rest is applied' "$(left fpm.listen)" "$(left kernel.metric)" "$(left admin.socket)" \
    "$(left admin.metrics)" "$(left log.format)" 'applied keys="kernel.multipath_hash"'
wait_until 5 'the rest' policy_is 1
check 'the kernel has the very same routes' same
rm "$DROP_INS/60-restart.toml"
reload 'back' 'applied keys="kernel.multipath_hash"'

section 'Every IPv4 route in another form'
gateways() { ipr r1 route show proto 1 | grep -oE 'via (inet6 )?[^ ]+' | sed -E 's/via (inet6 )?([0-9a-f]*).*/\1\2/' | sort -u | tr '\n' ' '; }
inet6() { all_installed r1 && [[ $(gateways) == 'inet6 fe80 ' && -z $(neighbours) ]]; }
ipv4_ll() { all_installed r1 && ours r1 10.20.1.0/24 'eth0 eth1' && ours r1 10.30.1.0/24 eth2 && [[ $(gateways) == '169 ' ]] && (($(neighbours | wc -l) == 3)); }
for round in 1 2; do
    put 70-form.toml 'kernel.ipv4_via_ipv6 = "inet6"'
    reload "inet6, $round" 'applied keys="kernel.ipv4_via_ipv6"'
    wait_until 10 'all IPv4 routes go by IPv6 gateways, and our 169.254 neighbours are gone' inet6
    put 70-form.toml 'kernel.ipv4_via_ipv6 = "ipv4-ll"'
    reload "ipv4-ll, $round" 'applied keys="kernel.ipv4_via_ipv6"'
    wait_until 10 'all IPv4 routes go by 169.254 addresses, with the right MACs' ipv4_ll
done
put 70-form.toml 'kernel.nexthop_objects = "never"'
reload 'no next-hop objects' 'applied keys="kernel.nexthop_objects"'
inline() { steady && [[ -z $(ipr r1 nexthop show proto 1) ]]; }
wait_until 10 'all next hops are inline, and our objects are gone' inline
rm "$DROP_INS/70-form.toml"
reload 'and again with them' 'applied keys="kernel.nexthop_objects"'
by_object() { steady && [[ -z $(fib | jq '.[] | select(.nhid == null)') ]]; }
wait_until 10 'all are by object' by_object

section 'One SIGHUP after the other'
for ((n = 0; n < 20; n++)); do
    for form in inet6 ipv4-ll; do
        put 70-form.toml "kernel.ipv4_via_ipv6 = \"$form\""
        signal r1/frr-offload HUP
    done
done
wait_until 10 'the last one counts' by_object

section 'So far'
not_one_lost 'not one packet was lost'
check 'every route is ours and as it was' steady

section 'What counts only later'
# 170 s until here.
put 80-stale.toml 'fpm.stale_time = "2s"'
reload 'stale_time, for the next time' 'applied keys="fpm.stale_time"'
kill_hard r1/bgpd r1/zebra
wait_until 10 'zebra has gone for good: two seconds later our routes go' not_ours r1 10.30.1.0/24
lab_passed
