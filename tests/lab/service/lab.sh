#!/usr/bin/env bash
# The daemon as a service, under real systemd and beside FRR's own unit.
#
# It starts before FRR and after it, and does its work with CAP_NET_ADMIN alone under the unit's system
# call filter: routes, a sysctl, rules of tc. A reload is done when `systemctl reload` returns, and a
# wrong file fails it. A daemon that hangs is started anew by the watchdog, while its routes stay. One
# that can't begin is not tried again. The journal has fields, the group of the socket may look and no
# more. With three capabilities more, and none of them less, it sees which FRR dials.
. "$(dirname "$0")/../lib.sh"

lab_init service
[[ -x $FRR_TREE/lib/systemd/systemd ]] || skip "no systemd in $FRR_TREE"

router r1 r2
link r1 eth0 02:00:00:00:01:00 r2 eth0 02:00:00:00:02:00
ipr r1 addr add 192.0.2.1/24 dev eth0
ipr r2 addr add 192.0.2.2/24 dev eth0
dir=$LAB/r1
cp -r "$ROOT/packaging" "$dir/packaging"
echo 'zebra_options="-A 127.0.0.1 -s 90000000 -M dplane_fpm_nl"' >"$dir/daemons"
cat >"$dir/frr.conf" <<EOF2
fpm address 127.0.0.1 port 2620
ip route 198.51.100.0/24 192.0.2.2
EOF2

# systemd's own pid: the child of unshare, which is the child of boot.
spawn r1/boot / "$LAB_SOURCE/service/boot" "$dir" "$FRR_TREE"
first_process() {
    local pid
    pid=$(pgrep -P "${PID[r1/boot]}") && pid=$(pgrep -P "$pid") || return 1
    [[ $(cat "/proc/$pid/comm") == systemd ]] && INIT=$pid
}
booted() { [[ -f $dir/cannot ]] || { first_process && in_r1 systemctl is-active --quiet sysinit.target; }; }
in_r1() { nsenter -t "$INIT" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
wait_until 60 'systemd runs' booted
[[ ! -f $dir/cannot ]] || skip "$(cat "$dir/cannot")"
say "$(in_r1 systemctl --version | head -n 1)"

unit() { in_r1 systemctl show -P "$1" frr-offload; }
# Files of that world are read and written from within.
put() { in_r1 sh -c "mkdir -p \"\$(dirname $1)\" && cat >$1"; }
# drop_in 'LINE'...: and nothing else.
drop_in() {
    printf '%s\n' '[Service]' "$@" | put /etc/systemd/system/frr-offload.service.d/lab.conf
    in_r1 systemctl daemon-reload
}
says() { [[ $(unit StatusText) == "$1" ]]; }
event() { in_r1 journalctl -q -o cat "_PID=$(unit MainPID)" FRR_OFFLOAD_EVENT="$1" | grep .; }
ours() { ipr r1 route show 198.51.100.0/24 proto redirect | grep -q 'via 192.0.2.2'; }

section 'Before FRR'
check 'the unit starts' in_r1 systemctl start frr-offload
check 'it says what it waits for' says 'zebra is not connected'
check 'FRR starts' in_r1 systemctl start frr
wait_until 30 'the route is in the kernel' ours
wait_until 30 'the unit says so' says 'following zebra'
check 'the journal has its fields' event source-synced

section 'What it may do'
status() { grep -E "^$1:[[:space:]]+$2\$" "/proc/$(host_pid)/status"; }
host_pid() { pgrep -x -n frr-offload --ns "$INIT" --nslist pid; }
check 'it is not root' not status Uid '0.*'
check 'it has CAP_NET_ADMIN and no other capability' status CapEff 0000000000001000
check 'and gets no other' status CapBnd 0000000000001000
check 'its system calls are filtered' status Seccomp 2
sees() { test -e "/proc/$(host_pid)/root$1"; }
check 'it sees its own directory' sees /run/frr-offload/admin.sock
# As the socket of a container engine, which is for the group that it is in.
in_r1 sh -c 'mkdir -p /run/containerd && : >/run/containerd/containerd.sock'
never 'and no other of /run' sees /run/containerd

section 'Reload'
put /etc/frr-offload/config.toml <<'EOF2'
kernel.multipath_hash = "l3"
[offload]
mode = "skip_hw"
EOF2
check 'a good file is applied' in_r1 systemctl reload frr-offload
policy() { [[ $(in_r1 cat /proc/sys/net/ipv4/fib_multipath_hash_policy) == 0 ]]; }
wait_until 5 'the sysctl is written' policy
echo 'kernel.metric = "much"' | put /etc/frr-offload/config.d/wrong.toml
never 'a wrong one fails the reload' in_r1 systemctl reload frr-offload
check 'and the daemon goes on' in_r1 systemctl is-active --quiet frr-offload

section 'A file that is wrong from the beginning'
never 'fails the start' in_r1 systemctl restart frr-offload
check 'with exit code 2' test "$(unit ExecMainStatus)" = 2
check 'and is not tried again' test "$(unit ActiveState)" = failed
check 'the route stays' ours
in_r1 rm /etc/frr-offload/config.d/wrong.toml

section 'After FRR'
check 'the unit starts' in_r1 systemctl restart frr-offload
wait_until 30 'it follows' says 'following zebra'
rules() { in_r1 frr-offload show offload --json | jq -e 'length > 10 and all(.[]; .state == "installed")'; }
no_flower() { in_r1 frr-offload show offload | grep -q 'TC classifier not found'; }
either() { rules || no_flower; }
wait_until 30 'rules are written' either
! no_flower || say 'this kernel has no flower: they were refused for that'
check 'the route was kept' ours

section 'Who may ask'
in_r1 sh -c 'groupadd -r netops; useradd -r -G netops anna; useradd -r otto' 2>/dev/null
printf 'admin.group = "netops"\n' | put /etc/frr-offload/config.d/group.toml
drop_in 'SupplementaryGroups=netops'
in_r1 systemctl restart frr-offload
as() { in_r1 setpriv --reuid "$1" --regid "$1" --init-groups frr-offload "${@:2}"; }
check 'the group may look' as anna show status
never 'and change nothing' as anna resync
never 'others may not look' as otto show status
check 'root may do all' in_r1 frr-offload resync

section 'The watchdog'
drop_in 'SupplementaryGroups=netops' 'WatchdogSec=1'
in_r1 systemctl restart frr-offload
hung=$(host_pid)
kill -s STOP "$hung"
anew() { [[ $(unit NRestarts) == 1 && $(unit ActiveState) == active ]]; }
kept() { ours && anew; }
wait_until 20 'a daemon that hangs is started anew, its route stays' kept
check 'systemd says why' in_r1 sh -c 'journalctl -q _PID=1 -o cat | grep "frr-offload.*[Ww]atchdog"'

section 'Which FRR dials'
caps='CAP_SYS_PTRACE CAP_CHECKPOINT_RESTORE CAP_DAC_READ_SEARCH'
with() {
    drop_in 'SupplementaryGroups=netops' "AmbientCapabilities=$1" "CapabilityBoundingSet=$1"
    in_r1 systemctl restart frr-offload
    wait_until 30 "it follows, with ${1:-CAP_NET_ADMIN alone}" says 'following zebra'
}
with "$caps"
check 'it knows' event zebra-known
for one in $caps; do
    with "${caps/$one/}"
    never "it does not without $one" event zebra-known
done

section 'The end'
check 'the unit stops' in_r1 systemctl stop frr-offload
check 'in good order' test "$(unit Result)" = success
check 'the route stays' ours
check 'and what is known of it' in_r1 test -f /run/frr-offload/state.json

kill -s TERM "${PID[r1/boot]}"
lab_passed
