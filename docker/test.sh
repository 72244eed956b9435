# shellcheck shell=bash
# docker/lab test: the story of a day in the lab, under traffic. Sourced by docker/lab.

begin=$SECONDS was_up=
! is_up || was_up=1
verdict() {
    local code=$?
    trap - EXIT
    set +e
    rm -rf "$WORK"
    if [[ $code != 0 && $code != 77 ]]; then
        state_of_all
        [[ -n $was_up ]] || (down)
        printf '\n%sFAIL%s  docker lab, after %d s\n' "$RED" "$PLAIN" $((SECONDS - begin))
    elif [[ $code == 77 ]]; then
        engine_end
    fi
    exit "$code"
}
state_of_all() {
    local service
    find_containers
    for service in "${!CONTAINER[@]}"; do
        section "$service: its last words"
        docker logs --tail 15 "${CONTAINER[$service]}" 2>&1
    done
    [[ ${#CONTAINER[@]} == 0 ]] || (show "${ROUTERS[@]}")
}
trap verdict EXIT

section 'Up'
up
version=$(frr leaf1 'show version' | sed -n 's/^FRRouting \([^ ]*\).*/\1/p')
say "FRR $version, $(offload leaf1 --version), Docker $(docker version --format '{{.Server.Version}}')"
! ours_runs || check 'the engine keeps to itself' engine_apart
check 'no link between routers has an IPv4 address' no_ipv4_between
for router in "${ROUTERS[@]}"; do check "$router: what the kernel prefers is ours, over both links where there are two" routes_right "$router"; done
wait_until 10 'every host and router reaches every other' all_pairs
wait_until 30 'all health checks pass' all_healthy

section 'A spine link is pulled'
flow_start
read -r spine other < <(spine_in_use)
say "the packets go by leaf1-$spine"
set_cable "leaf1-$spine" down
wait_until 10 "leaf1 uses $other alone" ours leaf1 10.2.0.0/24 "$other"
wait_until 10 "so does leaf2" ours leaf2 10.1.0.0/24 "$other"
flow_end 'while the link went' 50
check 'every host and router reaches every other without it' all_pairs
flow_start
set_cable "leaf1-$spine" up
wait_until 40 'the link is back: both ways again, on all routers' all_right
flow_end 'while the link came' 50

section 'frr-offload of leaf1 is restarted'
flow_start
docker restart -t 5 "${CONTAINER[leaf1-offload]}" >/dev/null
wait_until 30 'it is ready, and the kernel has its routes' router_right leaf1
flow_end 'meanwhile' 0

section 'FRR of leaf1 is restarted'
flow_start
docker restart -t 10 "${CONTAINER[leaf1-frr]}" >/dev/null
wait_until 60 'BGP is back, and all routes are in place' all_right
flow_end 'meanwhile' 100

section 'A whole spine is restarted'
flow_start
read -r spine other < <(spine_in_use)
say "$spine, by which the packets go"
power_off "$spine"
wait_until 10 "leaf1 uses $other alone" ours leaf1 10.2.0.0/24 "$other"
wait_until 10 "so does leaf2" ours leaf2 10.1.0.0/24 "$other"
flow_end 'while it went' 50
flow_start
power_on "$spine"
wait_until 60 'its cables are plugged, and all routes are in place' all_right
# Graceful restart: as soon as the port is up, FRR of the leaves takes the routes again that the spine had told
# before, and the spine has none yet. The sessions come within the hold time of 9 s.
flow_end 'while it came' 600
check 'every host and router reaches every other' all_pairs

if [[ -z $was_up ]]; then
    section 'Down'
    down
    check 'nothing of an engine of ours is left' engine_gone
fi
printf '\n%sPASS%s  docker lab, FRR %s, %d s\n' "$GREEN" "$PLAIN" "$version" $((SECONDS - begin))
