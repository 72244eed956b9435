# shellcheck shell=bash
# The commands of README and docs, as a reader would type them.
#
# A fenced block of `sh` says where it is run: `run=r1` on the router of the demo, `run=sw` on the switch of
# demo-offload, `run=none why=...` where a lab can't. tests/docs.rs sees to it that none says nothing.
# All lines of a block must succeed. A line that begins with `systemctl` is done by the lab, which has no
# service manager.

# documented_files: in the order in which they are run.
documented_files() { find "$ROOT/README.md" "$ROOT/docs" -name '*.md' | sort; }

# documented_blocks FILE WHERE: the blocks for there, each followed by a line of "%%".
documented_blocks() {
    awk -v where="$2" '
        /^ *```/ { if (inside) { if (wanted) print "%%"; inside = 0; next }
                   inside = 1; wanted = 0; match($0, /^ */); indent = RLENGTH
                   for (i = 1; i <= NF; i++) if ($i == "run=" where) wanted = 1
                   next }
        inside && wanted { print substr($0, indent + 1) }' "$1"
}

# run_documented ROUTER BLOCK: one block. Not in a subshell, which would not know what `systemctl` started.
run_documented() {
    local router=$1 line script=
    while IFS= read -r line; do
        case $line in
        'systemctl '*)
            run_script "$router" "$script" && documented_service "$router" "${line#systemctl }" || return
            script=
            ;;
        *) script+=$line$'\n' ;;
        esac
    done <<<"$2"
    run_script "$router" "$script"
}

run_script() {
    [[ -z $2 ]] || on "$1" bash -euo pipefail -c "$2" >"$LAB/documented" 2>&1 ||
        { LAB_WHY="$2$(tail -n 40 "$LAB/documented")" && return 1; }
}

documented_service() {
    case $2 in
    'stop frr-offload') offload_stop "$1" ;;
    'start frr-offload') offload_revive "$1" ;;
    'restart frr-offload') offload_stop "$1" && offload_revive "$1" ;;
    'reload frr-offload') signal "$1/frr-offload" HUP ;;
    'restart frr')
        cp "$LAB/$1/etc/daemons" "$LAB/daemons.again" && cp "$LAB/$1/etc/frr.conf" "$LAB/frr.conf.again" &&
            frr_stop "$1" && frr_start "$1" "$LAB/daemons.again" "$LAB/frr.conf.again"
        ;;
    *) LAB_WHY="systemctl $2: what is that in a lab?" && return 1 ;;
    esac
}

# all_documented ROUTER READY...: every block for that router; READY must hold before each.
all_documented() {
    local router=$1 file block line number blocks
    shift
    while IFS= read -r file <&3; do
        number=0 block=
        blocks=$(documented_blocks "$file" "$router")
        while IFS= read -r line <&4; do
            [[ $line == %% ]] || { block+=$line$'\n' && continue; }
            number=$((number + 1))
            documented_block "${file#"$ROOT/"}, block $number: ${block%%$'\n'*}" "$router" "$block" "$@"
            block=
        done 4<<<"$blocks"
    done 3< <(documented_files)
}

documented_block() {
    local what=$1 router=$2 block=$3 begin=$SECONDS
    shift 3
    until "$@" >/dev/null 2>&1; do
        ((SECONDS - begin <= 90 * LAB_SLOWNESS)) || fail "not at rest before $what"
        sleep 0.1
    done
    run_documented "$router" "$block" || { printf '%s\n' "$LAB_WHY" && fail "$what"; }
    ok "$what"
}
