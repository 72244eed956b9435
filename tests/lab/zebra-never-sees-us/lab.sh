#!/usr/bin/env bash
# zebra must not take our routes or next-hop objects for anybody's: neither import them (K>*, which
# would beat BGP's), nor send them back to us over FPM, nor use the id of one of our objects.
#
# In each set-up, with and without --asic-offload; after a restart of zebra, which then reads the
# whole kernel, and after a link went down and up, where zebra is known to make again what vanished.
# What zebra streams goes through fpm-tee and is read afterwards.
#
# FRR 10.7 reads all next-hop objects at its start, streams ours too, as the kernel's, and when a link
# flap flushed some it makes those ids again as its own. It can't be kept from that; our daemon must
# take nothing from it, and go on with other ids: no route or group of ours has an id that zebra has.
. "$(dirname "$0")/../lib.sh"
. "$LAB_SOURCE/checks.sh"

lab_init zebra-never-sees-us
sed 's/^fpm address.*/fpm address 127.0.0.1 port 2621/' "$FRR_CONF/leaf.conf" >"$LAB/leaf.conf"
three_routers "$FRR_CONF/daemons.beside" "$LAB/leaf.conf"

# Ours: 0xB8000000 to 0xBFFFFFFF.
OUR_ID='(. != null and . >= 3087007744 and . <= 3221225471)'

# ---- what zebra shows -----------------------------------------------------------------------------

no_kernel_route() {
    local family found
    for family in ip ipv6; do
        found=$(vtysh r1 "show $family route json" |
            jq -c '.[][] | select(.protocol == "kernel" or any(.nexthops[]?; .ip // "" | startswith("169.254.")))')
        [[ -z $found ]] || { echo "zebra has imported: $found"; return 1; }
    done
}
# Objects in our range that zebra thinks are its own, or some protocol's. (Text: 8.4 has no JSON.)
zebras_of_our_range() {
    vtysh r1 'show nexthop-group rib' | awk '
        match($0, /^ID: [0-9]+ \([a-z]+\)/) { split($0, part, /[ ()]+/)
            if (part[2] + 0 >= 3087007744 && part[2] + 0 <= 3221225471 && part[3] != "kernel") print part[2] }'
}
no_object_of_ours() {
    local id ids
    ids=$(zebras_of_our_range)
    if reads_objects; then
        for id in $ids; do
            not grep -qE ' proto 1( |$)' <<<"$(ipr r1 -N nexthop show id "$id" 2>/dev/null)" || { echo "we and zebra both have $id"; return 1; }
        done
    else
        [[ -z $ids ]] || { echo "zebra has $ids"; return 1; }
    fi
}
reads_objects() { [[ $FRR_VERSION =~ ^10\.([0-9]+) && ${BASH_REMATCH[1]} -ge 4 || $(frr_major) -gt 10 ]]; }

# ---- what it streams ------------------------------------------------------------------------------

stream() { local file; for file in "$LAB"/streams/*; do on r1 frr-offload decode "$file" --json; done; }
no_echo() {
    local found
    found=$(stream | jq -c "select(
        (.op | startswith(\"route\")) and
          ((.protocol | IN(\"redirect\", \"1\")) or (.nhid | $OUR_ID) or any(.nexthops[]?; .via // \"\" | startswith(\"169.254.\"))
           or (.protocol == \"kernel\" and (.prefix | IN(\"10.20.1.0/24\", \"10.30.1.0/24\", \"2001:db8:20::/64\", \"2001:db8:30::/64\", \"0.0.0.0/0\", \"::/0\"))))
        or (.op | startswith(\"nexthop\")) and (.id | $OUR_ID) and (.protocol // \"kernel\") != \"kernel\")")
    if reads_objects; then found=$(jq -c 'select(.op | startswith("route"))' <<<"$found"); fi
    [[ -z $found ]] || { echo "streamed: $found"; return 1; }
}

# ---- the kernel -----------------------------------------------------------------------------------

nothing_stolen() {
    local objects used found
    objects=$(ipr r1 -N -j nexthop show)
    if ! reads_objects; then
        found=$(jq -c ".[] | select((.id | $OUR_ID) and .protocol != \"1\")" <<<"$objects")
        [[ -z $found ]] || { echo "no longer ours: $found"; return 1; }
    fi
    # What our routes and groups use is ours, and nobody else uses it.
    used=$({ ipr r1 -N -j route show proto 1; ipr r1 -N -j -6 route show proto 1; } | jq '.[].nhid'
        jq '.[] | select(.protocol == "1") | .group[]?.id' <<<"$objects")
    found=$(jq -c --argjson used "$(sort -u <<<"$used" | jq -s .)" \
        '.[] | select((.id | IN($used[])) and .protocol != "1")' <<<"$objects")
    [[ -z $found ]] || { echo "we use what is not ours: $found"; return 1; }
    found=$(ipr r1 -N -j route show | jq -c ".[] | select((.nhid | $OUR_ID) and .protocol != \"1\")")
    [[ -z $found ]] || { echo "a foreign route leads to an object of ours: $found"; return 1; }
}

unseen() {
    check "$1: zebra has imported no route" no_kernel_route
    check "$1: zebra has no object of ours" no_object_of_ours
    check "$1: all ids of our range are ours" nothing_stolen
    check "$1: nothing of ours on FPM" no_echo
}
in_place() {
    all_installed r1 && ours r1 10.20.1.0/24 'eth0 eth1' && ours r1 10.30.1.0/24 eth2 &&
        ours r1 2001:db8:20::/64 'eth0 eth1' && ours r1 2001:db8:30::/64 eth2
}

for setup in beside takeover; do
    [[ $setup == beside || $(frr_major) -ge 10 ]] || { say "FRR $FRR_VERSION has no takeover"; continue; }
    for option in '' ' --asic-offload=notify_on_offload'; do
        name=$setup$option
        section "$name"
        frr_stop r1
        sed "s/-M dplane_fpm_nl/&$option/" "$FRR_CONF/daemons.$setup" >"$LAB/daemons"
        rm -rf "$LAB/streams"
        mkdir "$LAB/streams"
        spawn r1/fpm-tee / "$LAB_SOURCE/fpm-tee" 2621 2620 "$LAB/streams"
        offload_start r1 "setup = \"$setup\""$'\nkernel.on_exit = "flush"'
        frr_start r1 "$LAB/daemons" "$LAB/leaf.conf"
        wait_until 60 'our routes are in place' in_place
        unseen "$name"

        frr_stop r1
        frr_start r1 "$LAB/daemons" "$LAB/leaf.conf"
        wait_until 15 'zebra, started again, has dialled' test -s "$LAB/streams/2"
        unseen 'zebra has read the kernel'
        wait_until 60 'our routes are in place' in_place
        wait_until 30 'the replay is over' synced r1
        unseen 'after the restart'

        ipr r1 link set eth1 down
        wait_until 15 'eth1 is down, our route has left it' ours r1 10.20.1.0/24 eth0
        ipr r1 link set eth1 up
        ipr r1 link set eth2 down
        wait_until 15 'eth2 is down, our route is gone' not_ours r1 10.30.1.0/24
        ipr r1 link set eth2 up
        wait_until 60 'both are up, our routes are in place' in_place
        unseen 'after the link flaps'
        # on_exit = flush: the next round starts from nothing.
        offload_stop r1
        end r1/fpm-tee
    done
done

lab_passed
