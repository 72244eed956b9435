#!/usr/bin/env bash
# The recipe for VyOS. Its `setup` on a tree that looks like a VyOS router: installed, installed again, booted,
# after an image upgrade (another root, the same /config), with the operator's changes, and removed. Then real
# FRR on the daemons file that came out of it: zebra is told where we are, and told again after a commit, which
# takes the line away; no packet is lost by that.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$LAB_SOURCE/checks.sh"

SETUP_SCRIPT=$ROOT/docs/recipes/vyos/setup
lab_init recipe-vyos
root=$LAB/vyos

# new_image WORD: what an image brings. The template is one of Jinja's in VyOS, with expressions in it.
new_image() {
    mkdir -p "$root"/{etc/frr,etc/systemd/system,usr/bin,usr/share/vyos/templates/frr}
    {
        printf '# %s\n' "$1"
        sed -e '/^zebra_options=/{s/ -M dplane_fpm_nl//; s/"$/{{ '"' -M irdp' if irdp is vyos_defined"' }}"/}' -e '/^#/d' "$FRR_CONF/daemons.beside"
    } >"$root/usr/share/vyos/templates/frr/daemons.frr.tmpl"
    vyos_renders
}
vyos_renders() { sed 's/{{.*}}//' "$root/usr/share/vyos/templates/frr/daemons.frr.tmpl" >"$root/etc/frr/daemons"; }
# What VyOS does at a boot, as far as it concerns us.
vyos_boots() {
    vyos_renders
    sh -e <(sed "s|/config/frr-offload/setup|$root& --root $root|" "$root/config/scripts/vyos-preconfig-bootup.script")
}
setup() { "$SETUP_SCRIPT" --root "$root" "$@"; }
tree() { (cd "$root" && find . -type d -empty -delete -o ! -type d -printf '%p %m %l\n' | sort && find . -type f -exec sha256sum {} + | sort); }
in_place() {
    cmp "$FRR_OFFLOAD" "$root/usr/bin/frr-offload" && [[ -x $root/usr/bin/frr-offload ]] &&
        cmp "$ROOT/packaging/frr-offload.service" "$root/etc/systemd/system/frr-offload.service" &&
        [[ -f $root/etc/sysusers.d/frr-offload.conf && -f $root/etc/systemd/system/frr.service.d/frr-offload.conf ]] &&
        [[ $(readlink "$root/etc/frr-offload/config.toml") == /config/frr-offload/config.toml ]] &&
        [[ $(zebra_options) == *" $1" ]] && return
    zebra_options
    tree
    return 1
}
zebra_options() (
    # shellcheck disable=SC1091,SC2154
    . "$root/etc/frr/daemons" && echo "$zebra_options"
)
says() { grep -q -- "$1" "$LAB/said" || { cat "$LAB/said"; return 1; }; }

section 'Installed'
new_image 'the first image'
mkdir -p "$root/config/scripts"
printf '%s\n' '#!/bin/sh' 'touch "'"$LAB/mark"'"' 'exit 0' >"$root/config/scripts/vyos-preconfig-bootup.script"
chmod 750 "$root/config/scripts/vyos-preconfig-bootup.script"
tree >"$LAB/fresh"
never 'on another system it stops' "$SETUP_SCRIPT" --root "$LAB" install "$FRR_OFFLOAD"
setup install "$FRR_OFFLOAD" >"$LAB/said"
check 'everything is in its place' in_place '-M dplane_fpm_nl'
check 'FRR is not restarted behind the operator' not says 'restart frr$'
tree >"$LAB/installed"
setup install "$FRR_OFFLOAD" >"$LAB/said"
check 'installed again, nothing changes' cmp "$LAB/installed" <(tree)

section 'Reboots'
vyos_boots >"$LAB/said"
check 'all is as it was' cmp "$LAB/installed" <(tree)
check 'the service is started' says 'systemctl --no-block start frr-offload'
check 'FRR is not restarted' not says 'restart frr$'
check 'what the operator has in that script is run' test -f "$LAB/mark"

section 'An image upgrade'
rm -rf "${root:?}"/{etc,usr} "$LAB/mark"
new_image 'the second image'
check 'the new image knows nothing of us' not grep -q dplane_fpm_nl "$root/etc/frr/daemons"
vyos_boots >"$LAB/said"
check 'everything is in its place' in_place '-M dplane_fpm_nl'
check 'the new template is kept' grep -q 'the second image' "$root/usr/share/vyos/templates/frr/daemons.frr.tmpl"
check 'FRR is restarted, before VyOS loads its configuration' says 'systemctl restart frr$'
check 'the unit is read, and started' says 'systemctl --no-block restart frr-offload'
vyos_boots >"$LAB/said"
check 'at the next boot FRR is not restarted' not says 'restart frr$'

section 'What the operator changes stays'
setup_name=beside options='-M dplane_fpm_nl'
[[ $(frr_major) -lt 10 ]] || setup_name=takeover options='-M dplane_fpm_nl -R 5000'
echo "$options" >"$root/config/frr-offload/zebra-options"
sed -i "s/^setup = .*/setup = \"$setup_name\"/" "$root/config/frr-offload/config.toml"
setup install "$FRR_OFFLOAD" >/dev/null
vyos_boots >"$LAB/said"
check 'other options for zebra' in_place "$options"
check 'one line of ours' test "$(grep -c '# frr-offload$' "$root/etc/frr/daemons")" = 1
check 'the set-up' grep -qx "setup = \"$setup_name\"" "$root/config/frr-offload/config.toml"

section 'FRR on what came out of it'
# VyOS renders FRR's configuration as a whole, and knows no "fpm address".
sed '/^fpm address/d' "$FRR_CONF/leaf.conf" >"$LAB/leaf.conf"
three_routers "$root/etc/frr/daemons" "$LAB/leaf.conf"
offload_start r1 "$(cat "$root/config/frr-offload/config.toml")"
tell_zebra() { on r1 "$root/config/frr-offload/setup" tell-zebra; }
has_fpm() { vtysh r1 'show running-config' | grep -q '^fpm address 127.0.0.1'; }
never 'zebra does not know of us' has_fpm
check 'it is told at its start' tell_zebra
wait_until 60 'BGP has converged' bgp_converged
wait_until 20 'the replay is over' synced r1
wait_until 20 "everything is in place, set-up $setup_name" steady
static_ways
crossing_start
frr_configure r1 'no fpm address'
check 'a commit takes that away' not has_fpm
check 'its hook says it again' tell_zebra
check 'which may be said twice' tell_zebra
wait_until 20 'the replay is over' nothing_stale r1
check 'everything is in place' steady
not_one_lost 'and not one packet was lost'

section 'Removed'
setup remove >/dev/null
rm -rf "$root/config/scripts/commit"
sed -i 's/the second image/the first image/' "$root/usr/share/vyos/templates/frr/daemons.frr.tmpl" "$root/etc/frr/daemons"
check 'the tree is what it was' diff "$LAB/fresh" <(tree)

lab_passed
