# shellcheck shell=bash
# The engine that the lab runs on, its compose, and the image. Sourced by docker/lab, which gives ROOT and FRR.
#
# An engine that answers is used as it is. Where none does, one of our own is started: in network, mount
# and process namespaces of its own, with all its files in $ENGINE, so that the host's network stays as it
# is and nothing remains of it: with its first process all of it ends, containers too. /run is its own as well,
# or it would take the host's containerd, and ask the host's systemd for control groups of its containers.

ENGINE=/var/lib/frr-offload-docker.$(cksum <<<"$ROOT" | cut -d' ' -f1)

# stop_with CODE WORDS: what is in the way, in one line.
stop_with() {
    local code=$1
    shift
    printf 'docker/lab: %s\n' "$*" >&2
    exit "$code"
}

# Of a process that lives: one that nobody has waited for yet holds nothing.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# Is the engine of ours up, or on its way? OURS is the process that holds its namespaces.
ours_runs() {
    local start
    { read -r OURS start <"$ENGINE/owner"; } 2>/dev/null && [[ -n $start && $(start_time "$OURS") == "$start" ]]
}
answers() { timeout 20 docker version >/dev/null 2>&1; }

# exclusively COMMAND...: no other call for this checkout starts or removes the engine meanwhile.
exclusively() {
    exec {LOCK}<"$ROOT/docker"
    flock "$LOCK"
    "$@"
    exec {LOCK}<&-
}

# engine_find: ours, or the one that `docker` finds. False if there is none.
engine_find() {
    command -v docker >/dev/null || stop_with 77 "no docker command: scripts/setup docker, as root, installs it"
    if ours_runs; then export DOCKER_HOST=unix://$ENGINE/docker.sock; fi
    answers
}

engine_start() {
    [[ $(id -u) == 0 ]] || stop_with 77 "no engine answers, and to start one needs root: sudo docker/lab ..."
    PATH=$PATH:/usr/sbin:/sbin command -v dockerd >/dev/null || stop_with 77 "no engine answers, and there is no dockerd to start: scripts/setup docker, as root, installs it"
    exclusively start_ours
}
start_ours() {
    local tries
    if ours_runs; then
        export DOCKER_HOST=unix://$ENGINE/docker.sock
        ! answers || return 0
        stop_with 1 "our engine does not answer (log: $ENGINE/log): docker/lab down"
    fi
    [[ -z ${DOCKER_HOST:-} || $DOCKER_HOST == *"$ENGINE"* ]] || stop_with 77 "the engine at DOCKER_HOST=$DOCKER_HOST does not answer"
    remove_rest
    mkdir "$ENGINE"
    # shellcheck disable=SC2016  # $0 is the directory, for the inner shell
    local inside='
        PATH=$PATH:/usr/sbin:/sbin
        ip link set lo up
        mount -t tmpfs -o mode=755 tmpfs /run
        dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "unix://$0/docker.sock" \
            --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${0##*/}" \
            --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false &
        trap "kill $!" TERM
        wait $!
        wait $!'
    # Its owner is known before anything of it is there. Only who starts it holds the lock, not what is started.
    export -f start_time
    # shellcheck disable=SC2016  # this too
    setsid bash -c 'echo "$$ $(start_time "$$")" >"$0/owner"
        exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private bash -c "$1" "$0"' \
        "$ENGINE" "$inside" </dev/null >"$ENGINE/log" 2>&1 {LOCK}<&- &
    disown $!
    export DOCKER_HOST=unix://$ENGINE/docker.sock
    for ((tries = 0; tries < 300; tries++)); do
        ! answers || break
        [[ $tries -lt 10 ]] || ours_runs || break
        sleep 0.1
    done
    if ! answers; then
        tail -n 5 "$ENGINE/log" >&2
        end_ours
        stop_with 77 "dockerd does not run here"
    fi
    # shellcheck disable=SC2034  # for lab
    STARTED=1
    ok "no engine answered: one of our own is up, in namespaces of its own"
}

# Ends the engine, if it is ours, and removes all of it.
engine_end() { [[ ! -e $ENGINE ]] || exclusively end_ours; }
end_ours() {
    local tries child
    if ours_runs; then
        child=$(cut -d' ' -f1 "/proc/$OURS/task/$OURS/children" 2>/dev/null || true)
        [[ -z $child ]] || kill "$child" 2>/dev/null || true
        for ((tries = 0; tries < 100; tries++)); do
            ours_runs || break
            sleep 0.1
        done
        # Its --kill-child takes along what is left.
        ! ours_runs || kill -KILL "$OURS"
        while ours_runs; do sleep 0.1; done
    fi
    remove_rest
}
# The files and control groups of one that has ended; its mounts went with its namespace.
remove_rest() {
    rm -rf "$ENGINE"
    find /sys/fs/cgroup/{,*/}"${ENGINE##*/}" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# compose ARGUMENTS...: version 2, or docker-compose 1.29.
compose() {
    local command=(docker compose)
    docker compose version >/dev/null 2>&1 || command=(docker-compose)
    FRR=$FRR "${command[@]}" --project-directory "$ROOT/docker" -f "$ROOT/docker/docker-compose.yml" --project-name "$PROJECT" "$@"
}
have_compose() {
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
        stop_with 77 "no compose: scripts/setup docker, as root, installs it"
}

# ---- the image -----------------------------------------------------------------------------------

# The binary that goes into the image: FRR_OFFLOAD, else the newest build, else it is built now.
binary() {
    local target=${CARGO_TARGET_DIR:-$ROOT/target} newest
    # shellcheck disable=SC2012  # two fixed names
    newest=${FRR_OFFLOAD:-$(ls -t "$target"/{release,debug}/frr-offload 2>/dev/null | head -n 1 || true)}
    if [[ -z $newest ]]; then
        say "building frr-offload" >&2
        "$ROOT/scripts/cargo" build --release --locked --quiet >&2 || stop_with 1 "frr-offload does not build"
        newest=$target/release/frr-offload
    fi
    [[ -x $newest ]] || stop_with 1 "no binary at $newest"
    echo "$newest"
}

# image_make: frr-offload-lab:$FRR, on debian:$FRR-slim, or where that can't be had, on one made by debootstrap.
image_make() {
    local work=$1 program tar
    program=$(binary)
    mkdir -p "$work/target/release" "$work/docker"
    cp "$program" "$work/target/release/frr-offload"
    # Symbols are most of a debug build.
    strip "$work/target/release/frr-offload" 2>/dev/null || true
    cp -r "$ROOT/docker/image" "$ROOT/docker/Dockerfile" "$work/docker/"
    if ! ours_runs && say "building the image on debian:$FRR-slim" && image_build "$work" "debian:$FRR-slim" default; then
        ok "image: $(image_words), on debian:$FRR-slim"
        return
    fi
    ours_runs || say "that failed ($(grep -v '^$' "$work/log" | tail -n 1 | cut -c 1-100)), so on a base made by debootstrap"
    tar=$("$ROOT/docker/base" "$FRR") || stop_with 77 "debian:$FRR-slim can't be had, nor made here (see above)"
    base=frr-offload-base:$FRR
    [[ $(docker image inspect -f '{{.Created}}' "$base" 2>/dev/null || true) > $(date -ur "$tar" +%FT%TZ) ]] ||
        docker import "$tar" "$base" >/dev/null || stop_with 1 "the engine did not take $tar"
    if ! image_build "$work" "$base" none; then
        tail -n 20 "$work/log" >&2
        stop_with 1 "the image could not be built"
    fi
    ok "image: $(image_words), on a base made by debootstrap"
}
image_build() {
    timeout 900 docker build --network "$3" --build-arg "FRR=$FRR" --build-arg "BASE=$2" --target lab \
        -t "frr-offload-lab:$FRR" -f "$1/docker/Dockerfile" "$1" >"$1/log" 2>&1
}
image_words() {
    docker run --rm --network none "frr-offload-lab:$FRR" sh -c '/usr/lib/frr/zebra --version | sed -n "s/^zebra version/FRR/p"; frr-offload --version' |
        paste -sd, | sed 's/,/, /'
}
