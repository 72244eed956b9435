# shellcheck shell=bash
# What the labs of northbound gRPC share: a zebra with the module, and what the kernel has of ours in a form that can be
# compared. Sourced after checks.sh.

GRPC='[northbound]
endpoint = "http://127.0.0.1:50051"
interval = "5s"
max_routes = 20000'

# northbound_routers: three_routers, with gRPC in the zebra of r1.
northbound_routers() {
    # The module is in no package of Debian: scripts/grpc-module has made the tree.
    [[ -n $(find "$FRR_TREE/usr/lib/" -path '*/frr/modules/grpc.so') ]] || skip "no gRPC module in $FRR_TREE"
    sed 's/-M dplane_fpm_nl/& -M grpc:50051/' "$FRR_CONF/daemons.${SETUP:-beside}" >"$LAB/daemons"
    three_routers "$LAB/daemons"
}

# northbound_alone [TOML]: a configuration in which zebra, which dials port 2620, finds nobody there.
northbound_alone() { printf 'fpm.listen = "127.0.0.1:2621"\n%s\n%s\n' "${1:-}" "$GRPC"; }

# settled ROUTER SOURCE: that one has said everything, and all of it is in place.
settled() {
    offload "$1" show status --json | jq -e --arg source "$2" '(.sources[] | select(.name == $source) | .state == "synced") and
        .kernel.wanted > 0 and .kernel.installed == .kernel.wanted and .kernel.pending == 0 and .kernel.failed == 0'
}

# source_is NAME JQ: that holds of its part of the status of r1.
source_is() {
    offload r1 show status --json | jq -e --arg source "$1" ".sources[] | select(.name == \$source) | $2" >/dev/null ||
        { offload r1 show status && offload r1 show events; return 1; }
}

# answers: how many gRPC has given to r1; answers_over N: more than so many.
answers() { offload r1 show status --json | jq '.sources[] | select(.name == "northbound") | .frames'; }
answers_over() { (($(answers) > $1)); }

# events_have KIND [TEXT]: one of that kind on r1, which says this.
events_have() {
    offload r1 show events --json | jq -e --arg kind "$1" --arg text "${2:-}" \
        'any(.[]; .kind == $kind and (.text | contains($text)))' >/dev/null || { offload r1 show events; return 1; }
}

# kept_start ROUTER, kept ROUTER: no route of ours was removed from the kernel since.
kept_start() {
    ! alive "$1/monitor" || end "$1/monitor"
    : >"$LAB/$1/log/monitor"
    spawn "$1/monitor" / ip -N monitor route
    quiet_wait 5 "$1/monitor" grep -q . "/proc/${PID["$1/monitor"]}/comm"
}
kept() { not grep '^Deleted .* proto 1 ' "$LAB/$1/log/monitor"; }

# goes ROUTER PREFIX 'VIA%DEV ...': what the kernel prefers is ours and has exactly these next hops.
goes() {
    preferred "$1" "$2" | jq -e --arg hops "$3" '.protocol == "1" and
        ([(.nexthops // [.])[] | "\(.gateway // .via.host // "-")%\(.dev // "-")"] | sort | join(" ")) == $hops' >/dev/null ||
        { echo "$1: $2 goes elsewhere than to $3: $(preferred "$1" "$2")"; return 1; }
}

# kernel_state ROUTER: a line for each route of ours, each next-hop object without its id, and each permanent
# neighbour.
kernel_state() {
    local family
    for family in -4 -6; do
        ipr "$1" "$family" -N -j route show table all proto 1 | jq -r '.[] |
            "route \(.table // 254) \(.dst) type \(.type // 1) metric \(.metric) source \(.prefsrc // "-") " +
            ([(.nexthops // [.])[] | "\(.gateway // .via.host // "-")%\(.dev // "-")*\(.weight // 1)\(if (.flags // []) | index("onlink") then "!" else "" end)"] | sort | join(" "))'
    done | sort
    ipr "$1" -j nexthop show | jq -r '[.[] | select(.id >= 3087007744)] | INDEX(.id) as $all | .[] |
        def hop: "\(.gateway // "-")%\(.dev // "-")\(if .blackhole != null then " blackhole" else "" end)";
        "object " + (if .group then [.group[] | "\($all[.id | tostring] | hop)*\(.weight // 1)"] | sort | join(" ") else hop end)' | sort
    ipr "$1" neigh show nud permanent | grep -v ' dev lo ' | sort
}
