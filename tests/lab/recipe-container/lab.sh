#!/usr/bin/env bash
# The recipe for containers: its files parse, and what they name is there. Then real FRR, and our daemon with what the
# recipe leaves to it, without an engine: the capabilities of compose.yml, no new privileges, root and /proc/sys
# read-only, one directory to write. It installs routes, and one that is started anew takes them over.
# (In containers: docker/.)
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$LAB_SOURCE/checks.sh"

RECIPE=$ROOT/docs/recipes/container
lab_init recipe-container

section 'Files'
parses() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -f "$RECIPE/compose.yml" config
    elif command -v docker-compose >/dev/null; then
        docker-compose -f "$RECIPE/compose.yml" config
    else
        python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$RECIPE/compose.yml"
    fi
}
check 'compose.yml parses' parses
while read -r path; do
    check "it names $path, which is there" test -e "$RECIPE/$path"
done < <(sed -n 's|.*[" ]\(\./[^:"]*\):.*|\1|p' "$RECIPE/compose.yml")
while read -r path; do
    check "they name $path, which is there" test -e "$ROOT/$path"
done < <(grep -ohE '\b(docs|frr-conf|tests)/[a-z./-]*[a-z]' "$RECIPE"/{README.md,Dockerfile,compose.yml} | sort -u)
# of_sidecar KEY: its list there, as words.
of_sidecar() { sed -n "/^  frr-offload:/,/^volumes:/s/^    $1: \[\(.*\)\]/\1/p" "$RECIPE/compose.yml" | tr -d '",'; }
capabilities=$(of_sidecar cap_add)
check 'the sidecar has one capability' test "$capabilities" = NET_ADMIN
line=$(sed -n '/^docker run/,/ frr-offload$/p' "$RECIPE/README.md")
for word in --network=container:frr "--cap-add=$capabilities" --cap-drop=ALL --security-opt=no-new-privileges --read-only; do
    check "so has the line for docker run: $word" grep -qF -- "$word" <<<"$line"
done
if command -v docker >/dev/null; then
    docker run --help >"$LAB/options" 2>&1
    while read -r word; do check "docker knows $word" grep -q -- "$word " "$LAB/options"; done < <(grep -oE -- '--[a-z-]+' <<<"$line" | sort -u)
fi

section 'What it may do is enough'
cat >"$LAB/bin/contained" <<EOF
#!/bin/sh
# contained COMMAND...: in the mount namespace of its own that \`on\` gave it.
set -e
mkdir -p /run/frr-offload
mount --bind /run/frr-offload /run/frr-offload
mount --bind /proc/sys /proc/sys
for dir in / /run /var/tmp /proc/sys; do mount -o remount,bind,ro "\$dir"; done
exec setpriv --no-new-privs --clear-groups --inh-caps=-all --bounding-set="-all,+$(tr '[:upper:]' '[:lower:]' <<<"$capabilities")" "\$@"
EOF
chmod +x "$LAB/bin/contained"
# One namespace is FRR's, and the daemon joins it.
sidecar() {
    spawn r1/frr-offload / "$LAB/bin/contained" "$LAB/bin/frr-offload" run --config "$RECIPE/frr-offload/config.toml"
    quiet_wait 20 r1/frr-offload on r1 frr-offload show status
}
router probe
# shellcheck disable=SC2016  # expanded by the inner shell
can_write() { on probe "$LAB/bin/contained" sh -c ': >>"$0"' "$1"; }
for path in /root/x /etc/x /run/x /proc/sys/net/ipv4/ip_forward; do check "$path can't be written" not can_write "$path"; done
check 'the volume can' can_write /run/frr-offload/x
three_routers "$FRR_CONF/daemons.beside"
sidecar
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1
wait_until 20 'everything is in place' steady
check 'it has no capability but this one' grep -qx $'CapEff:\t0000000000001000' "/proc/${PID[r1/frr-offload]}/status"
check 'the health check of compose.yml' offload r1 show status
wait_until 10 '/readyz' is_ready r1
wait_until 10 'the doctor finds nothing bad' finds_nothing r1

section 'Another container of it'
static_ways
crossing_start
kill_hard r1/frr-offload
sidecar
wait_until 20 'everything is in place' steady
not_one_lost 'and not one packet was lost'

lab_passed
