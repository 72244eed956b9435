//! Sample answers to the exact text that is printed.

use super::super::samples;
use super::*;

fn screen() -> Screen<Vec<u8>> {
    Screen {
        out: Vec::new(),
        colour: false,
    }
}

fn text(screen: Screen<Vec<u8>>) -> String {
    String::from_utf8(screen.out).unwrap()
}

fn table(mut table: Table, rows: &[Row]) -> String {
    let mut screen = screen();
    table.write(&mut screen, rows).unwrap();
    text(screen)
}

#[track_caller]
fn same(found: &str, expected: &str) {
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn routes_have_a_line_for_each_next_hop() {
    let mut rows = Vec::new();
    for route in samples::routes() {
        route_rows(&route, &mut rows);
    }
    same(
        &table(routes(), &rows),
        r"PREFIX              TABLE  PROTOCOL  KERNEL     OFFLOAD   VIA                  DEV  WEIGHT  KERNEL VIA   MAC                          NOTE
10.2.0.0/16           254  bgp       installed  off       fe80::a0:1ff:fe02:3  p0        1  169.254.0.1  02:a0:01:02:00:03 (learned)
                                                          fe80::a0:1ff:fe02:4  p1        1  169.254.0.1  02:a0:01:02:00:04 (eui64)
10.3.0.0/16           254  bgp       installed  hardware  fe80::a0:1ff:fe02:3  p0        1  169.254.0.1  02:a0:01:02:00:03 (learned)
                                                          fe80::a0:1ff:fe02:4  p1        1  169.254.0.1  02:a0:01:02:00:04 (eui64)
10.4.0.0/16           254  bgp       installed  software  fe80::a0:1ff:fe02:3  p0        1  169.254.0.1  02:a0:01:02:00:03 (learned)  table-full
                                                          fe80::a0:1ff:fe02:4  p1        1  169.254.0.1  02:a0:01:02:00:04 (eui64)
10.9.0.0/24           254  bgp       pending    off       -                    -         -  -            -                            nexthop-unknown
192.0.2.0/24          254  222       installed  off       blackhole            -         -  -            -
2001:db8:9::/48  10 (red)  bgp       failed     off       fe80::a0:1ff:fe02:3  p0        1  -            -                            kernel-refused (Invalid argument: Nexthop id does not exist), stale, nexthop-unresolved
",
    );
}

#[test]
fn rules_are_in_tcs_words() {
    let rows: Vec<Row> = samples::rules().iter().map(rule_row).collect();
    same(
        &table(rules(), &rows),
        r"PORT     CHAIN  PRIO  HANDLE  KIND   TABLE  STATE      HW  HW PACKETS  SW PACKETS  NOTE                                       PROTOCOL  MATCH               ACTION
block 7      0     1     0x1  entry      -  installed   2        9321           1                                             ip        any                 goto chain 1
block 7      2    85       -  route    254  failed     no           0           0  Operation not supported: Rule is too long  ip        dst_ip 10.2.0.0/16  goto chain 5
block 7      5     1     0x1  hop        -  installed   2        9321           1                                             ip        any                 pedit ex munge eth dst set 02:00:00:00:00:02 munge eth src set 02:00:00:00:00:01 munge ip ttl dec pipe csum ip pipe mirred egress redirect dev p1
veth0        0     1    0x2a  stray      -  stray      no           0           0                                             -         -                   -
",
    );
    let mut screen = screen();
    offload_summary(&mut screen, &samples::offload_summary()).unwrap();
    same(
        &text(screen),
        r"SWITCH  KIND   STATE      RULES  IN HW
-       stray  stray          1      0
5e7f01  entry  installed      1      1
5e7f01  route  failed         1      0
5e7f01  hop    installed      1      1
4 rules, 2 in hardware
switch 5e7f01: 118 of 120 rules in use, 7 prefixes wait for room
",
    );
}

#[test]
fn ports_say_what_they_admit_and_why_not_more() {
    let rows: Vec<Row> = samples::ports().iter().map(port_row).collect();
    same(
        &table(ports(), &rows),
        r"PORT    ROLE            SWITCH  DRIVER     MODE          TABLE  MAC                 MTU  LINK  ADMITS      BLOCK  TC OFFLOAD  NOTE                                                                                   VERDICT
p1      uplink          5e7f01  mlx5_core  switchdev  10 (red)  02:00:00:00:00:01  9000  up    ipv4, ipv6      7  on          -                                                                                      everything the chained layout needs
veth0   other           -       -          -               254  -                  1500  down  -               -  -           port-without-mac, not-forwarding, forward-filter (nftables chain inet filter forward)  software only
p1.100  vlan 100 of p1  5e7f01  mlx5_core  switchdev  10 (red)  02:00:00:00:00:01  9000  up    -               7  on          vlan-priority                                                                          everything the chained layout needs
",
    );
}

#[test]
fn filter_rules_say_where_they_stand_and_what_the_driver_said() {
    let mut rows = Vec::new();
    for rule in samples::acl() {
        acl_rows(&rule, &mut rows);
    }
    same(
        &table(acl(), &rows),
        r"NAME       PLACE     RULE                                                 AT       STATE     RULES  IN HW  HW PACKETS  HW BYTES  SW PACKETS  SW BYTES  NOTE
no-telnet  hardware  ipv4 drop src 198.51.100.0/24 proto tcp dst_port 23  block 7  hardware      2      3         120      7200           0         0  -
                                                                          p2       failed        2      0           0         0           0         0  acl-incomplete: Operation not supported: no such match
watch      any       ipv6 trap vrf red                                    -        pending       -      -           -         -           -         -  no-port
",
    );
}

#[test]
fn counters_tell_ports_and_kinds_of_rules() {
    let mut screen = screen();
    counters(&mut screen, &samples::counters()).unwrap();
    same(
        &text(screen),
        r"PORT   ROLE    VRF  WAY  PACKETS   BYTES  ERRORS  DROPPED  CPU PACKETS  HW SHARE  PACKETS/S  BITS/S
p1     uplink  red  rx      2000  296000       3        7           20      99 %        100  118400
                    tx      1000  148000       0        0         1001       0 %        100  118400
veth0  other   -    rx         5     300       0        0            -         -          -       -
                    tx         0       0       0        0            -         -          -       -
rates over 10.2 s

KIND   RULES  IN HW  HW PACKETS  HW BYTES  SW PACKETS  SW BYTES
acl        2      2           4       392           1        84
route    120    120        1980    194040           1        84
",
    );
}

#[test]
fn counters_of_a_port_are_all_that_is_known() {
    let mut screen = screen();
    port_statistics(&mut screen, &samples::port_statistics()).unwrap();
    same(
        &text(screen),
        r"PORT  ROLE    VRF  WAY  PACKETS  BYTES  ERRORS  DROPPED  CPU PACKETS  HW SHARE  PACKETS/S  BITS/S
p1    uplink  red  rx      2000      0       0        0           20      99 %        100  118400
                   tx      1000      0       0        0            0     100 %        100  118400
rates over 10.2 s

GROUP    COUNTER                         VALUE
link     rx_packets                       2000
link     tx_packets                       1000
cpu      rx_packets                         20
eth-mac  FramesReceivedOK                 2000
rmon     rx-etherStatsPkts65to127Octets   1500
driver   vport_rx_packets                 2000
driver   hw_drop_packets                     0
driver: Input/output error (os error 5)
",
    );
}

#[test]
fn groups_name_frrs_ids_and_the_kernels() {
    let mut rows = Vec::new();
    for group in samples::groups() {
        group_rows(&group, &mut rows);
    }
    same(
        &table(groups(), &rows),
        r"GROUP  ROUTES  FRR IDS  KERNEL IDS  VIA                  DEV  WEIGHT  KERNEL VIA   MAC                          HW PACKETS  SW PACKETS  NOTE
    3    1000  17,18    3087007745  fe80::a0:1ff:fe02:3  p0        1  169.254.0.1  02:a0:01:02:00:03 (learned)        9321           1
                                    fe80::a0:1ff:fe02:4  p1        1  169.254.0.1  02:a0:01:02:00:04 (eui64)             -           -
    4       1  -        -           -                    -         -  -            -                                     -           -  group-loop
",
    );
}

#[test]
fn neighbours_say_what_stands_for_them_in_the_kernel() {
    let rows: Vec<Row> = samples::neighbours().iter().map(neighbour_row).collect();
    same(
        &table(neighbours(), &rows),
        r"ADDRESS              DEV       MAC                          STATE  KERNEL VIA   OWNER  GROUPS  NOTE
fe80::a0:1ff:fe02:3  p0        02:a0:01:02:00:03 (learned)  stale  169.254.0.1  ours        2
fe80::9              p0 (red)  -                            -      -            -           1  nexthop-unresolved
",
    );
}

#[test]
fn events_are_a_line_each() {
    let rows: Vec<Row> = samples::events().iter().map(event_row).collect();
    same(
        &table(events(), &rows),
        r"TIME                      SEVERITY  EVENT          TEXT
2026-01-02T03:04:06.500Z  info      fpm-connected  zebra connected from 127.0.0.1:41234
2026-01-02T03:05:06.000Z  warn      link-down      p1 lost its carrier
",
    );
}

#[test]
fn status_is_one_screen() {
    let mut screen = screen();
    status(&mut screen, &samples::status()).unwrap();
    same(
        &text(screen),
        r"frr-offload 0.1.0 (abc1234), set-up takeover, up 1h 2m 5s, 34 MiB
  source    fpm from 127.0.0.1:41234: 1000 routes, 12 of them stale, 345 frames, 1 replay  synced
  kernel    1000 wanted, 998 installed, 2 pending, 0 failed; next hops as objects          pending
  offload   120 rules, room for 30000, 118 in hardware, 2 refused, chained layout          skip_sw
  feedback  told to zebra: 900 forward, 3 do not; 97 not answered yet                      forwarding
  17 updates not taken (connected, kernel or our own routes)
  1 netlink overrun, each followed by a full dump
  mended, because others had deleted or changed them: 2 routes, 0 next-hop objects, 1 neighbour, 3 rules
  updates dropped:
           3  host-bits  bits behind the prefix length are set
",
    );
}

#[test]
fn a_summary_counts_and_gives_reasons_in_words() {
    let mut screen = screen();
    summary(&mut screen, &samples::summary()).unwrap();
    same(
        &text(screen),
        r"TABLE  FAMILY  PROTOCOL  KERNEL     ROUTES
  254  ipv4    bgp       pending      1000
  254  ipv6    bgp       installed       2
1002 routes
      1000  link-down  the next hop's interface is down or has no carrier
",
    );
}

#[test]
fn a_plan_is_commands_and_says_what_is_none() {
    let mut out = Vec::new();
    for line in samples::plan() {
        plan_line(&mut out, &line).unwrap();
    }
    same(
        &String::from_utf8(out).unwrap(),
        r"ip neigh replace 169.254.0.1 lladdr 02:00:00:00:00:01 dev p0 nud permanent proto redirect
ip nexthop replace id 3087007744 via 169.254.0.1 dev p0 onlink proto redirect
tc filter add dev p0 ingress chain 4 protocol ip prio 9 flower skip_sw src_ip 0.0.0.1/0.0.0.1 action goto chain 5 cookie 6f6e65206f66206f75722072756c6573 # tc can't type a mask with gaps
ip route del 10.2.0.0/16 proto redirect metric 10
",
    );
}

#[test]
fn explain_walks_the_stages_and_ends_with_the_verdict() {
    let mut screen = screen();
    explanation(&mut screen, &samples::explanation()).unwrap();
    explanation(&mut screen, &samples::no_route()).unwrap();
    same(
        &text(screen),
        r"10.2.0.0/16 table 254
  source   fpm bgp, group 17 (2 paths)                               synced
  nexthop  fe80::a0:1ff:fe02:3 on p0 -> 02:a0:01:02:00:03 (learned)  ready
  kernel   nhid 3087007745, 169.254.0.1 on p0                        installed
  offload  nothing is offloaded                                      off
  verdict  forwarded by the kernel                                   software
198.51.100.1 table 10 (red)
  reason   the next hop's interface is down or has no carrier  link-down
  verdict  no route of ours is in place for it                 no-route
",
    );
}
