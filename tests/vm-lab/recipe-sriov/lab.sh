#!/usr/bin/env bash
# The recipe for SR-IOV hosts, by its own files, as far as a simulated switch goes: real udevd names the ports, the
# script changes the mode of the eswitch, again changes nothing, and says in a line what is wrong; real networkd leaves
# the ports alone, NetworkManager reads its file; then the daemon finds the ports, and hosts there are offloaded. VFs of
# PCI, which the simulated switch has not, are files that look like sysfs.
. "$(dirname "$0")/../lib.sh"

RECIPE=$ROOT/docs/recipes/sriov
lab_init recipe-sriov
rm -f "$LAB/bin/vtysh"
switch_router legacy=1
UDEV=$("$ROOT/scripts/deb-tree" udev) || skip "udev can't be had here"
ln -s "$UDEV/bin/udevadm" "$LAB/bin/udevadm"
# It is the name that says what the program is.
ln -s "$UDEV/bin/udevadm" "$LAB/bin/systemd-udevd"

# This is a VM: what is installed here is gone with it.
install -D -m 755 "$RECIPE/switchdev" /usr/local/sbin/frr-offload-switchdev
install -D -m 644 "$RECIPE/frr-offload-switchdev.service" /etc/systemd/system/frr-offload-switchdev.service
install -D -m 644 "$RECIPE/05-frr-offload-ports.network" /etc/systemd/network/05-frr-offload-ports.network
install -D -m 644 "$RECIPE/networkd.conf" /etc/systemd/networkd.conf.d/90-frr-offload.conf
mkdir -p /etc/frr-offload /etc/udev/rules.d "$LAB/sw/run/udev" "$LAB/pci"
echo 'platform/eswitch-sim.0 -' >/etc/frr-offload/switchdev.conf
switchdev() { on sw env PATIENCE=0 frr-offload-switchdev "$@" >"$LAB/said" 2>&1; }
says() { grep -qE -- "$1" "$LAB/said" || { cat "$LAB/said"; return 1; }; }
mode_is() { devlink dev eswitch show platform/eswitch-sim.0 | grep -q " mode $1"; }

section 'Files'
check 'systemd takes the unit' systemd-analyze verify --man=no /etc/systemd/system/frr-offload-switchdev.service
if on sw udevadm verify --help >/dev/null 2>&1; then check 'udev takes the rules' on sw udevadm verify "$RECIPE/70-frr-offload-ports.rules"; fi
if nm=$("$ROOT/scripts/deb-tree" network-manager) && libndp=$("$ROOT/scripts/deb-tree" libndp0); then
    mkdir -p "$LAB/nm" && cp "$RECIPE/NetworkManager.conf" "$LAB/nm/90-frr-offload.conf" && : >"$LAB/nm.conf"
    LD_LIBRARY_PATH=$(echo "$libndp"/usr/lib/*) "$nm/usr/sbin/NetworkManager" --print-config --config "$LAB/nm.conf" --config-dir "$LAB/nm" \
        --system-config-dir "$LAB/none" --intern-config "$LAB/none" >"$LAB/said"
    check 'NetworkManager takes its file' says '^unmanaged-devices=interface-name:sw0\*'
fi

section 'The mode, and names'
check 'it begins in legacy mode' mode_is legacy
spawn sw/udevd / "$LAB/bin/systemd-udevd"
quiet_wait 20 sw/udevd on sw udevadm control --ping
# The id of a switch is its own; it shows once there are ports.
check 'the script' switchdev
check 'says what it did' says 'platform/eswitch-sim.0: switchdev'
check 'the eswitch is in switchdev mode' mode_is switchdev
check 'ports are up' grep -q UP <(ip -br link show pf0vf0)
id=$(cat /sys/class/net/p0/phys_switch_id)
check 'again' switchdev
check 'it changes nothing' test ! -s "$LAB/said"
sed "s/e41d2d0003a1b2c3/$id/" "$RECIPE/70-frr-offload-ports.rules" >/etc/udev/rules.d/70-frr-offload-ports.rules
on sw udevadm control --reload
# As at a boot: the mode is set while udev looks on.
devlink dev eswitch set platform/eswitch-sim.0 mode legacy
check 'with names by udev' switchdev
check 'ports have them' test "$(cd /sys/class/net && echo sw0*)" = 'sw0p0 sw0pf0vf0 sw0pf0vf1 sw0pf0vf2 sw0pf0vf3'
check 'and are up' test "$(ip -br link show up | grep -c '^sw0')" = 5
check 'NetworkManager is told to leave them alone' grep -q NM_UNMANAGED=1 <(on sw udevadm info /sys/class/net/sw0pf0vf0)
never 'and nobody else' grep -q NM_UNMANAGED=1 <(on sw udevadm info /sys/class/net/vf0_0)

section 'networkd'
# A file such as distributions and clouds bring.
printf '[Match]\nName=*\n[Network]\nLinkLocalAddressing=ipv6\n' >/etc/systemd/network/99-all.network
on sw install -d -o systemd-network -g systemd-network /run/systemd /run/systemd/netif /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
# What was there before udev: as systemd-udev-trigger does.
on sw udevadm trigger --action=add --subsystem-match=net
on sw udevadm settle
spawn sw/networkd / /lib/systemd/systemd-networkd
# As doctor reads it.
admin_state() { grep -qxE "ADMIN_STATE=$2" "$LAB/sw/run/systemd/netif/links/$(cat "/sys/class/net/$1/ifindex")"; }
wait_until 20 'it looks after others' admin_state vf0_3 'configur(ing|ed)'
for port in sw0p0 sw0pf0vf0 sw0pf0vf3; do wait_until 10 "and leaves $port alone" admin_state "$port" unmanaged; done

section 'The daemon'
# shellcheck disable=SC2034  # lib.sh asks it
PORT=([h0]=sw0pf0vf0 [h1]=sw0pf0vf1)
switch_lan h0 h1
daemon_alone
wait_until 20 'it finds the ports' test "$(offload sw show ports --json | jq -r '[.[].name] | sort | join(" ")')" = 'sw0p0 sw0pf0vf0 sw0pf0vf1 sw0pf0vf2 sw0pf0vf3'
wait_until 10 'there is a way' hops_to h0 h1
in_hardware() { offload sw explain 10.50.0.2 --json | jq -e '.verdict == "hardware"' && offload sw explain 10.50.1.2 --json | jq -e '.verdict == "hardware"'; }
wait_until 20 'hosts there are in hardware' in_hardware
by_hardware 'what they send each other' hops_to h0 h1
well() { findings sw | jq -e 'all(.[]; .id == "zebra-not-connected" or .severity == "info")' >/dev/null || { offload sw doctor; return 1; }; }
wait_until 10 'the doctor finds nothing but that zebra is missing' well

section 'What is wrong is said'
wrong() { # WHAT PATTERN LINE [CODE]
    local code=0
    echo "$3" >"$LAB/wrong.conf"
    switchdev "$LAB/wrong.conf" || code=$?
    check "$1" says "$2"
    check "... and it ends with ${4:-1}" test "$code" = "${4:-1}"
}
wrong 'no such device' 'pci/0000:ff:00.0 is not there; there are: platform/eswitch-sim.0' 'pci/0000:ff:00.0 4'
wrong 'a line that is none' 'line 1: not .DEVICE VFS.' 'pci/0000:03:00.0 four' 2
never 'no file' switchdev "$LAB/absent"
check 'which it names' says 'absent can.t be read'

section 'VFs'
# nic MODE VFS [refuses-first|refuses-later]: a NIC of PCI in files, and programs that know it alone.
nic() {
    rm -rf "$LAB/pci" && mkdir -p "$LAB/pci/bin" "$LAB/pci/bus/pci/devices/0000:03:00.0"
    cd "$LAB/pci/bus/pci/devices/0000:03:00.0" || fail 'no files'
    echo "$2" >sriov_numvfs && echo 8 >sriov_totalvfs && echo 1 >sriov_drivers_autoprobe && echo "$1" >mode && echo "${3:-}" >refuses
    : >"$LAB/pci/bus/pci/drivers_probe"
    cat >"$LAB/pci/bin/devlink" <<'SH'
#!/bin/sh
cd "$SYSFS/bus/pci/devices/0000:03:00.0"
vfs=$(cat sriov_numvfs)
case "$*" in
"dev eswitch show "*) echo "pci/0000:03:00.0: mode $(cat mode) inline-mode none" ;;
"dev eswitch set "*)
    case $(cat refuses):$vfs in
    vfs-first:0 | mode-first:[1-9] | never:*) echo "kernel answers: Operation not supported" >&2; exit 1 ;;
    esac
    echo "mode with $vfs VFs, autoprobe $(cat sriov_drivers_autoprobe)" >>history
    echo switchdev >mode ;;
"dev show pci/0000:03:00.0" | "dev show") echo pci/0000:03:00.0 ;;
esac
SH
    printf '#!/bin/sh\n' | tee "$LAB/pci/bin/ethtool" >"$LAB/pci/bin/udevadm"
    chmod +x "$LAB/pci/bin/"*
    cd "$ROOT" || fail 'no way back'
}
with_vfs() { echo "pci/0000:03:00.0 $1" >"$LAB/pci/conf" && env "PATH=$LAB/pci/bin:$PATH" SYSFS="$LAB/pci" PATIENCE=0 frr-offload-switchdev "$LAB/pci/conf" >"$LAB/said" 2>&1; }
file() { cat "$LAB/pci/bus/pci/devices/0000:03:00.0/$1"; }
nic legacy 0 mode-first
check 'a driver that wants the mode first' with_vfs 4
check 'got it, and then VFs' test "$(file history) $(file sriov_numvfs)" = 'mode with 0 VFs, autoprobe 1 4'
check 'again' with_vfs 4
check 'it changes nothing' test ! -s "$LAB/said"
never 'another number' with_vfs 6
check 'VFs in use are not removed' says '0000:03:00.0 has 4 VFs, not 6: '
nic legacy 0 vfs-first
check 'a driver that wants VFs first' with_vfs 4
check 'got them, without a driver' test "$(file history) $(file sriov_numvfs) $(file sriov_drivers_autoprobe)" = 'mode with 4 VFs, autoprobe 0 4 1'
nic legacy 0 never
never 'one that refuses either way' with_vfs 4
check 'which it says, with the words of the driver' says 'pci/0000:03:00.0 stays in mode legacy: .*Operation not supported'

end sw/networkd
end sw/udevd
lab_passed
