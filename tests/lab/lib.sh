# shellcheck shell=bash
# Routers in network namespaces, with real FRR and our daemon, for labs and the demo.
#
# Sourced by bash, root only. Owns: namespaces, links, starting and stopping what runs in them,
# waiting for conditions, and showing everything when something is wrong. Knows nothing about
# what a lab checks; the checks that several labs share are in checks.sh.
#
# The host stays as it is. Links are made inside the namespaces and never show up outside. Each
# router sees a private /run, /var/tmp, /var/lib/frr and /etc/frr (bind mounts in the mount
# namespace of each command), so sockets, pid files and locks of FRR and ours have their usual
# paths and still never meet those of the host or of another router. Nothing is mounted outside.
#
# Everything is kept in one directory of mktemp, $LAB:
#   owner            pid and start time of the lab, so that clean-host leaves a running lab alone
#   pids             pid, start time and name of each process we started
#   ROUTER/run ...   the private directories of a router;  ROUTER/log  output of its processes
#
# Input: FRR_OFFLOAD (binary), FRR_TREE (a root file system with FRR, "/" by default),
# KEEP=1 (leave the lab up at the end), VERBOSE=1 (say what is run), LAB_SLOWNESS=N (this machine is
# so many times slower than usual, as an emulated one is: limits are longer by that).

set -euo pipefail
# Tools that follow the locale or the terminal would make output differ between machines.
export LC_ALL=C TERM=${TERM:-dumb}
umask 022

LAB_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$LAB_SOURCE/../.." && pwd)
FRR_CONF=$ROOT/frr-conf
FRR_TREE=${FRR_TREE:-/}
LAB_SLOWNESS=${LAB_SLOWNESS:-1}
LAB_PREFIX=fo-$$
LAB=
# shellcheck disable=SC2034  # read by checks.sh
declare -A PEER=()       # "r1 eth0" -> "r2 eth0": who is at the other end of a link
declare -A PID=()        # "r1/zebra" -> pid
declare -A PID_START=()  # "r1/zebra" -> start time of that pid, so that we never end a stranger
ROUTERS=()

# ---- saying ------------------------------------------------------------------------------------

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' GREEN='' DIM='' PLAIN=''
fi

ok() { printf '  %sok%s    %s\n' "$GREEN" "$PLAIN" "$*"; }
say() { printf '        %s\n' "$*"; }
section() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }

# Ends the lab as passed over, with the reason. Exit code 77 means that to the runner.
skip() {
    printf 'SKIP: %s\n' "$*"
    LAB_RESULT=skip
    exit 77
}

# Ends the lab as failed, after showing the state of every router.
fail() {
    trap - ERR
    set +e
    printf '  %sFAIL%s  %s\n' "$RED" "$PLAIN" "$*"
    lab_dump
    # Again at the end, because the dump is long.
    printf '\n%s\n%sFAIL%s  %s\n' "${LAB_WHY:-}" "$RED" "$PLAIN" "$*"
    exit 1
}

# ---- the life of a lab ---------------------------------------------------------------------------

lab_init() {
    LAB_NAME=$1
    LAB_RESULT=fail
    [[ $(id -u) == 0 ]] || skip "needs root"
    [[ -x $FRR_TREE/usr/lib/frr/zebra ]] || skip "no FRR in $FRR_TREE (apt-get install frr)"
    FRR_OFFLOAD=${FRR_OFFLOAD:-$(newest_build)}
    [[ -x $FRR_OFFLOAD ]] || { echo "no frr-offload binary: build first, or set FRR_OFFLOAD" >&2; exit 1; }
    LAB=$(mktemp -d "/tmp/frr-offload-lab.XXXXXX")
    chmod 755 "$LAB"
    echo "$$ $(start_time $$)" >"$LAB/owner"
    : >"$LAB/pids"
    mkdir "$LAB/bin"
    ln -s "$(realpath "$FRR_OFFLOAD")" "$LAB/bin/frr-offload"
    # What `doctor` asks is the vtysh of that FRR, in the world of whichever router runs it.
    if [[ $FRR_TREE != / ]]; then
        # shellcheck disable=SC2016  # expanded by the script
        printf '#!/bin/sh\nexec unshare -m %q "$LAB_DIRECTORY" %q vtysh "$@"\n' "$LAB_SOURCE/inside" "$FRR_TREE" >"$LAB/bin/vtysh"
        chmod +x "$LAB/bin/vtysh"
    fi
    trap lab_exit EXIT
    trap 'exit 130' INT TERM HUP
    set -o errtrace
    trap 'lab_error "$BASH_COMMAND"' ERR
    FRR_VERSION=$(frr_version)
    say "lab $LAB_NAME, FRR $FRR_VERSION, Linux $(uname -r)"
}

newest_build() {
    local target=${CARGO_TARGET_DIR:-$ROOT/target}
    # shellcheck disable=SC2012  # two fixed names
    ls -t "$target"/release/frr-offload "$target"/debug/frr-offload 2>/dev/null | head -n 1 || true
}

lab_error() {
    # Only the lab itself reports: a failed command in $(...) shows up there as well.
    [[ $BASH_SUBSHELL == 0 ]] || return 0
    # Name the line of the lab, not that of the function of this library which it called.
    local frame=1
    while [[ ${BASH_SOURCE[frame]} == "$ROOT"/tests/*.sh && -n ${BASH_SOURCE[frame + 1]:-} ]]; do frame=$((frame + 1)); done
    fail "line ${BASH_LINENO[frame - 1]} of ${BASH_SOURCE[frame]#"$ROOT/"}, at: $1"
}

# Called at the very end of a lab that got through.
lab_passed() { LAB_RESULT=pass; }

lab_exit() {
    local code=$?
    trap - EXIT ERR INT TERM HUP
    set +e
    if [[ ${KEEP:-} == 1 && ${#ROUTERS[@]} -gt 0 ]]; then
        lab_keep
    else
        lab_remove
    fi
    [[ $code == 0 && $LAB_RESULT == fail ]] && code=1
    exit "$code"
}

# Ends our processes and removes our namespaces and files, and nothing else.
lab_remove() {
    local name router daemon
    # Before all, who would start others again.
    for name in "${!PID[@]}"; do
        [[ $name != */watchfrr ]] || { end "$name" && router=${name%/*} &&
            for daemon in $(frr_daemons "$LAB/$router/etc/daemons"); do frr_adopt "$router" "$daemon"; done; }
    done
    # Our daemon first: it shall not log and repair what we take down on purpose.
    for name in "${!PID[@]}"; do [[ $name == */frr-offload ]] && signal "$name" TERM; done
    for name in "${!PID[@]}"; do [[ $name == */frr-offload ]] || signal "$name" TERM; done
    for name in "${!PID[@]}"; do end "$name"; done
    for router in "${ROUTERS[@]}"; do ip netns delete "$(ns "$router")" 2>/dev/null; done
    [[ $LAB == /tmp/frr-offload-lab.* ]] && rm -rf "$LAB"
}

# KEEP=1: leave all running, with two little scripts to enter it and to remove it.
lab_keep() {
    cat >"$LAB/enter" <<EOF
#!/bin/sh
# enter ROUTER [COMMAND...]: a shell, or a command, on a router of this lab.
router=\$1
[ -d "$LAB/\${router:-?}/run" ] || { echo "usage: $LAB/enter ${ROUTERS[*]} [COMMAND...]" >&2; exit 2; }
shift
[ \$# -gt 0 ] || set -- env PS1="\$router# " /bin/sh -i
export PATH="$LAB/bin:\$PATH"
exec ip netns exec "$LAB_PREFIX-\$router" "$LAB_SOURCE/inside" "$LAB/\$router" "\${FRR_TREE_OF_COMMAND:-/}" "\$@"
EOF
    cat >"$LAB/remove" <<EOF
#!/bin/sh
exec "$ROOT/scripts/clean-host" "$LAB"
EOF
    chmod +x "$LAB/enter" "$LAB/remove"
    local vtysh="$LAB/enter ${ROUTERS[0]} vtysh"
    [[ $FRR_TREE == / ]] || vtysh="FRR_TREE_OF_COMMAND=$FRR_TREE $vtysh"
    printf '\n%sThe lab is still up.%s As root:\n' "$BOLD" "$PLAIN"
    cat <<EOF
  a shell on a router    $LAB/enter ${ROUTERS[0]}
  FRR's own shell        $vtysh
  our command line       $LAB/enter ${ROUTERS[0]} frr-offload show routes
  logs                   ls $LAB/${ROUTERS[0]}/log $LAB/${ROUTERS[0]}/run/frr
  remove it              $LAB/remove
EOF
}

# ---- processes ---------------------------------------------------------------------------------

# read_stat PID: STAT_STATE and STAT_START, fields 3 and 22 of /proc/PID/stat; the name before them may
# hold spaces and parentheses. Without other programs: it is asked often, and a process is dear in a VM.
read_stat() {
    local line fields
    { IFS= read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }"
    STAT_STATE=${fields[0]} STAT_START=${fields[19]}
}
start_time() { ! read_stat "$1" || echo "$STAT_START"; }

# spawn ROUTER/NAME TREE COMMAND...: start on that router in the background, output to
# $LAB/ROUTER/log/NAME. In a session of its own, so that Ctrl-C reaches only the lab, which then
# ends everything in order. All the wrappers exec, so the pid is that of the command.
spawn() {
    local name=$1 router=${1%%/*} tree=$2
    shift 2
    [[ ${VERBOSE:-} != 1 ]] || say "$DIM$name: $*$PLAIN"
    setsid ip netns exec "$(ns "$router")" "$LAB_SOURCE/inside" "$LAB/$router" "$tree" "$@" \
        </dev/null >>"$LAB/$router/log/${name#*/}" 2>&1 &
    PID[$name]=$!
    PID_START[$name]=$(start_time $!) || true
    echo "$! ${PID_START[$name]} $name" >>"$LAB/pids"
    # No "Killed" message of the shell; whoever ends it looks at /proc.
    disown $!
}

# True while the process we started under this name lives. A zombie does not, unless its other
# threads have not ended yet: they hold its sockets.
alive() {
    local pid=${PID[$1]:-} tasks
    [[ -n $pid ]] || return 1
    read_stat "$pid" || return 1
    [[ $STAT_START == "${PID_START[$1]}" ]] || return 1
    tasks=("/proc/$pid/task/"*)
    [[ $STAT_STATE != Z || ${#tasks[@]} -gt 1 ]]
}

signal() { ! alive "$1" || kill -s "$2" "${PID[$1]}" 2>/dev/null || true; }

# end NAME: TERM, KILL after five seconds, until it is gone.
end() {
    local tries
    signal "$1" TERM
    for ((tries = 0; tries < 100 * LAB_SLOWNESS; tries++)); do
        alive "$1" || break
        ((tries == 50 * LAB_SLOWNESS)) && signal "$1" KILL
        sleep 0.1
    done
    unset "PID[$1]" "PID_START[$1]"
}

# kill_hard NAME...: kill -9, all at once, and until they are gone.
kill_hard() {
    local name
    for name in "$@"; do signal "$name" KILL; done
    for name in "$@"; do
        while alive "$name"; do sleep 0.02; done
        unset "PID[$name]" "PID_START[$name]"
    done
}

# ---- waiting and checking ------------------------------------------------------------------------

# wait_until SECONDS 'what' COMMAND...: the command succeeds in time, or the lab fails.
# The condition is the last thing shown on failure: its output is often the answer.
wait_until() {
    local seconds=$(($1 * LAB_SLOWNESS)) what=$2 begin=${EPOCHREALTIME/./} now
    shift 2
    until "$@" >/dev/null 2>&1; do
        now=${EPOCHREALTIME/./}
        if ((now - begin > seconds * 1000000)); then
            LAB_WHY=$(printf '  ....  last try of: %s\n' "$*"; "$@" 2>&1 | sed 's/^/          /' | tail -n 40) || true
            printf '%s\n' "$LAB_WHY"
            fail "not within $seconds s: $what"
        fi
        sleep 0.1
    done
    now=${EPOCHREALTIME/./}
    ok "$what ($(printf '%d.%d' $(((now - begin) / 1000000)) $(((now - begin) / 100000 % 10))) s)"
}

# check 'what' COMMAND...: the command succeeds now, or the lab fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        ok "$what"
    else
        LAB_WHY=$(printf '  ....  %s\n%s' "$*" "$output" | tail -n 40)
        printf '%s\n' "$LAB_WHY"
        fail "$what"
    fi
}

# never 'what' COMMAND...: the command does not succeed now.
never() {
    local what=$1
    shift
    check "$what" not "$@"
}
not() { ! "$@"; }

# ---- routers and links ---------------------------------------------------------------------------

ns() { echo "$LAB_PREFIX-$1"; }

# on ROUTER COMMAND...: run it there, with the private /run of that router.
on() {
    local router=$1
    shift
    PATH=$LAB/bin:$PATH ip netns exec "$(ns "$router")" "$LAB_SOURCE/inside" "$LAB/$router" / "$@"
}

# ipr ROUTER ARGUMENTS...: the ip command in that namespace, without the cost of `on`.
ipr() {
    local router=$1
    shift
    ip -n "$(ns "$router")" "$@"
}

# router NAME...: a namespace that forwards, with a stub network lan0 and quick, predictable IPv6.
router() {
    local name
    for name in "$@"; do
        ip netns add "$(ns "$name")"
        routes_packets "$name"
        # A veth with both ends here: not every kernel has dummy devices.
        ipr "$name" link add lan0 type veth peer name lan0-end
        ipr "$name" link set lan0-end addrgenmode none up
        ipr "$name" link set lan0 up
    done
}

# routes_packets ROUTER: its private directories, and a namespace that forwards.
routes_packets() {
    local name=$1
    ROUTERS+=("$name")
    mkdir -p "$LAB/$name"/{run,tmp,lib,etc,log}
    chmod 1777 "$LAB/$name/tmp"
    # Whatever the host passes down to new namespaces, a lab starts from the same values.
    # No duplicate address detection: it costs a second or two a link and is not the matter.
    on "$name" sysctl -qw \
        net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
        net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
        net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0 \
        net.ipv6.conf.default.addr_gen_mode=0 \
        net.ipv6.conf.all.keep_addr_on_down=1 \
        net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
    ipr "$name" link set lo up
}

# link ROUTER IFACE MAC ROUTER IFACE MAC: a cable, both ends up.
# With MACs given, the link-local addresses are known beforehand (EUI-64).
link() {
    ipr "$1" link add "$2" address "$3" type veth \
        peer name "$5" address "$6" netns "$(ns "$4")"
    # shellcheck disable=SC2034  # read by checks.sh
    PEER["$1 $2"]="$4 $5" PEER["$4 $5"]="$1 $2"
    ipr "$1" link set "$2" up
    ipr "$4" link set "$5" up
}

mac() { ipr "$1" -o link show "$2" | sed 's|.* link/ether ||; s| .*||'; }
link_local() { ipr "$1" -o -6 addr show dev "$2" scope link | sed '1!d; s|.* inet6 ||; s|/.*||'; }

# ---- FRR ---------------------------------------------------------------------------------------

# In the FRR tree, which is / or a root file system made by debootstrap.
frr_on() {
    local router=$1
    shift
    ip netns exec "$(ns "$router")" "$LAB_SOURCE/inside" "$LAB/$router" "$FRR_TREE" "$@"
}

frr_version() {
    local zebra=/usr/lib/frr/zebra
    if [[ $FRR_TREE == / ]]; then "$zebra" --version; else chroot "$FRR_TREE" "$zebra" --version; fi |
        sed -n 's/^zebra version //p'
}

frr_major() { echo "${FRR_VERSION%%.*}"; }

# frr_start ROUTER DAEMONS FRR.CONF: what the init script of FRR does with these two files.
frr_start() {
    local router=$1 daemons=$2 conf=$3 dir=$LAB/$1 daemon
    mkdir -p "$dir/run/frr"
    cp "$daemons" "$dir/etc/daemons"
    cp "$conf" "$dir/etc/frr.conf"
    cp "$FRR_CONF/vtysh.conf" "$dir/etc/vtysh.conf"
    frr_on "$router" sh -c 'chown -R frr:frr /run/frr /etc/frr /var/tmp && if cd /var/lib/frr 2>&-; then chown frr:frr .; fi'
    for daemon in $(frr_daemons "$daemons"); do frr_daemon "$router" "$daemon"; done
    frr_on "$router" vtysh -b >"$dir/log/vtysh" 2>&1 ||
        { cat "$dir/log/vtysh"; fail "FRR on $router did not take its configuration"; }
}

# frr_start_all [ROUTER DAEMONS FRR.CONF]...: the same for several routers at a time.
frr_start_all() {
    local starting=() code=0 pid start name
    while [[ $# -gt 0 ]]; do
        frr_start "$1" "$2" "$3" &
        starting+=($!)
        shift 3
    done
    for pid in "${starting[@]}"; do wait "$pid" || code=1; done
    # Subshells have started them, and have shown what went wrong.
    while read -r pid start name; do PID[$name]=$pid PID_START[$name]=$start; done <"$LAB/pids"
    [[ $code == 0 ]] || exit 1
}

# The daemons to start, in order: mgmtd (10.x), zebra and staticd, unless the file says no.
frr_daemons() (
    # shellcheck disable=SC1090
    . "$1"
    for daemon in mgmtd zebra staticd bgpd ospfd ospf6d bfdd; do
        case $daemon in
        mgmtd) [[ -x $FRR_TREE/usr/lib/frr/mgmtd && ${mgmtd:-yes} == yes ]] || continue ;;
        staticd) [[ ${staticd:-yes} == yes ]] || continue ;;
        zebra) ;;
        *) [[ ${!daemon:-no} == yes ]] || continue ;;
        esac
        echo "$daemon"
    done
)

frr_daemon() {
    local router=$1 daemon=$2 options
    # shellcheck disable=SC1090
    options=$(. "$LAB/$router/etc/daemons" && name=${daemon}_options && echo "${!name:-}")
    # A killed one leaves its sockets behind, and we are about to wait for the new ones.
    rm -f "$LAB/$router/run/frr/$daemon.vty"
    [[ $daemon != zebra ]] || rm -f "$LAB/$router/run/frr/zserv.api"
    # shellcheck disable=SC2086  # options are words
    spawn "$router/$daemon" "$FRR_TREE" /usr/lib/frr/"$daemon" $options \
        --log "file:/run/frr/$daemon.log" --log-level informational
    quiet_wait 20 "$router/$daemon" test -S "$LAB/$router/run/frr/$daemon.vty"
    [[ $daemon != zebra ]] || quiet_wait 20 "$router/$daemon" test -S "$LAB/$router/run/frr/zserv.api"
}

# A condition that is not worth a line when it comes true. NAME must stay alive meanwhile.
quiet_wait() {
    local seconds=$(($1 * LAB_SLOWNESS)) name=$2 begin=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        alive "$name" || fail "$name ended: $(tail -n 3 "$LAB/${name%/*}/log/${name#*/}" 2>/dev/null)"
        ((SECONDS - begin <= seconds)) || fail "$name is not ready after $seconds s: $*"
        sleep 0.05
    done
}

# frr_revive ROUTER DAEMON...: start daemons that ended again, in order, as watchfrr would.
frr_revive() {
    local router=$1 daemon
    shift
    for daemon in "$@"; do frr_daemon "$router" "$daemon"; done
    for daemon in "$@"; do
        frr_on "$router" vtysh -b -d "$daemon" >"$LAB/$router/log/vtysh" 2>&1 ||
            { cat "$LAB/$router/log/vtysh"; fail "$daemon on $router did not take its configuration"; }
    done
}

# watchfrr_start ROUTER: what starts daemons of FRR again that ended. Those that it starts put
# themselves into the background; frr_adopt finds them.
watchfrr_start() {
    local router=$1 daemons
    mapfile -t daemons < <(frr_daemons "$LAB/$router/etc/daemons")
    spawn "$router/watchfrr" "$FRR_TREE" /usr/lib/frr/watchfrr -i 1 --min-restart-interval 1 --max-restart-interval 1 "${daemons[@]}"
    quiet_wait 20 "$router/watchfrr" test -S "$LAB/$router/run/frr/watchfrr.vty"
}

# Ends it, and takes over what it has started.
watchfrr_stop() {
    local daemon
    end "$1/watchfrr"
    for daemon in $(frr_daemons "$LAB/$1/etc/daemons"); do frr_adopt "$1" "$daemon" || fail "no $daemon on $1"; done
}

# frr_adopt ROUTER DAEMON [OLD-PID]: it runs, as another process than that, and is now ours to end.
frr_adopt() {
    local name=$1/$2 pid
    pid=$(cat "$LAB/$1/run/frr/$2.pid" 2>/dev/null) && [[ $pid != "${3:-}" && -d /proc/$pid ]] || return 1
    [[ ${PID[$name]:-} != "$pid" ]] || return 0
    PID[$name]=$pid
    PID_START[$name]=$(start_time "$pid")
    echo "$pid ${PID_START[$name]} $name" >>"$LAB/pids"
}

# vtysh ROUTER 'command'...
vtysh() {
    local router=$1 arguments=() line
    shift
    for line in "$@"; do arguments+=(-c "$line"); done
    frr_on "$router" vtysh "${arguments[@]}"
}

# frr_configure ROUTER 'line'...: into the running configuration.
frr_configure() {
    local router=$1
    shift
    vtysh "$router" 'configure terminal' "$@"
}

# frr_stop ROUTER: as the init script of FRR ends it: all at the same moment.
frr_stop() {
    local daemon daemons
    mapfile -t daemons < <(frr_daemons "$LAB/$1/etc/daemons")
    for daemon in "${daemons[@]}"; do signal "$1/$daemon" INT; done
    for daemon in "${daemons[@]}"; do end_slowly "$1/$daemon"; done
}
end_slowly() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        alive "$1" || break
        sleep 0.05
    done
    end "$1"
}

# ---- our daemon ----------------------------------------------------------------------------------

# offload_start ROUTER [TOML]: the daemon on that router, ready to be asked.
offload_start() {
    offload_spawn "$@"
    offload_ready "$1"
}
offload_spawn() {
    local router=$1 config=$LAB/$1/frr-offload.toml
    printf '%s\n' "${2:-}" >"$config"
    spawn "$router/frr-offload" / "$LAB/bin/frr-offload" run --config "$config"
}
offload_ready() { quiet_wait 20 "$1/frr-offload" on "$1" frr-offload show status; }

offload_stop() { end "$1/frr-offload"; }

# offload_revive ROUTER: the daemon again, with the configuration it had.
offload_revive() { offload_start "$1" "$(cat "$LAB/$1/frr-offload.toml")"; }

# offload ROUTER ARGUMENTS...: our command line on that router.
offload() {
    local router=$1
    shift
    on "$router" frr-offload "$@"
}

# ---- when something is wrong -----------------------------------------------------------------------

lab_dump() {
    local router log
    for router in "${ROUTERS[@]}"; do
        section "$router when it failed"
        dump "$router" ip -br link
        dump "$router" ip -br addr
        dump "$router" ip route show
        dump "$router" ip -6 route show
        dump "$router" ip nexthop show
        dump "$router" ip neigh show
        if alive "$router/zebra"; then
            dump_frr "$router" 'show bgp summary'
            dump_frr "$router" 'show ip route'
            dump_frr "$router" 'show ipv6 route'
        fi
        if [[ -e $LAB/$router/log/frr-offload ]]; then
            dump_frr "$router" 'show fpm counters'
            if alive "$router/frr-offload"; then
                dump "$router" frr-offload show status
                dump "$router" frr-offload show routes
                dump "$router" frr-offload show nexthops
                dump "$router" frr-offload show neighbours
                dump "$router" frr-offload show events
            else
                printf '   frr-offload is not running\n'
            fi
        fi
        ! declare -F dump_more >/dev/null || dump_more "$router"
        for log in "$LAB/$router"/log/* "$LAB/$router"/run/frr/*.log; do
            [[ -s $log ]] || continue
            printf '   -- last lines of %s\n' "${log#"$LAB/"}"
            tail -n 40 "$log" | sed 's/^/      /'
        done
    done
}

dump() {
    local router=$1 output
    shift
    output=$(on "$router" timeout 10 "$@" 2>&1 | head -n 80)
    printf '   -- %s\n' "$*"
    [[ -z $output ]] || printf '      %s\n' "${output//$'\n'/$'\n'      }"
}

dump_frr() {
    printf '   -- vtysh: %s\n' "$2"
    frr_on "$1" timeout 10 vtysh -c "$2" 2>&1 | head -n 60 | sed 's/^/      /'
}
