use super::*;
use crate::model::{AclAction, AclPlace, AclTerms, Family};

#[test]
fn filter_rules_are_read_in_their_order() {
    let rules = config(
        "[[acl]]\n\
         name = 'bgp'\n\
         family = 'ipv4'\n\
         action = 'permit'\n\
         match = { proto = 'tcp', dst_port = 179, src = '192.0.2.1', vlan = 5 }\n\
         [[acl]]\n\
         name = 'x11'\n\
         family = 'ipv6'\n\
         action = 'drop'\n\
         place = 'any'\n\
         match = { in = ['p*', '!p3'], proto = 6, dst_port = '6000-6063', dscp = 46, vrf = 'red' }\n\
         [[acl]]\n\
         name = 'rest'\n\
         family = 'ipv6'\n\
         action = 'trap'\n",
    )
    .acl;
    let bgp = AclTerms {
        proto: Some(6),
        dst_port: Some((179, 179)),
        src: Some("192.0.2.1/32".parse().unwrap()),
        vlan: Some(5),
        ..AclTerms::all(Family::V4, AclAction::Permit)
    };
    let x11 = AclTerms {
        ports: PortFilter::new(["p*", "!p3"]).ok(),
        proto: Some(6),
        dst_port: Some((6000, 6063)),
        dscp: Some(46),
        vrf: Some("red".into()),
        ..AclTerms::all(Family::V6, AclAction::Drop)
    };
    let rest = AclTerms::all(Family::V6, AclAction::Trap);
    let expected = [
        ("bgp", AclPlace::Hardware, bgp),
        ("x11", AclPlace::Any, x11),
        ("rest", AclPlace::Hardware, rest),
    ];
    assert_eq!(rules.len(), expected.len());
    for (rule, (name, place, terms)) in rules.iter().zip(expected) {
        assert_eq!(
            (&*rule.name, rule.place, &rule.terms),
            (name, place, &terms)
        );
    }
}

#[test]
fn faults_of_filter_rules_say_which_rule_and_what_is_allowed() {
    let found = faults(
        "[[acl]]\n\
         name = ''\n\
         family = 'ip'\n\
         action = 'deny'\n\
         plase = 'any'\n\
         match.dst_prot = 5\n\
         [[acl]]\n\
         name = 'a'\n\
         family = 'ipv4'\n\
         action = 'drop'\n\
         match.dst_port = 70000\n\
         match.src = '2001:db8::/32'\n\
         match.vlan = 4095\n\
         match.proto = 'gre'\n\
         [[acl]]\n\
         name = 'a'\n\
         family = 'ipv4'\n\
         action = 'drop'\n\
         match = { dst_port = '23-22' }\n\
         [[acl]]\n\
         name = 'b'\n\
         family = 'ipv6'\n\
         action = 'drop'\n\
         match = { dst_port = 23, proto = 'icmp', icmp_type = 8 }\n\
         [[acl]]\n\
         name = 'c'\n\
         family = 'ipv4'\n\
         action = 'drop'\n\
         match = { proto = 'udp', src_port = '1-65534', dst_port = '1-65534' }\n",
    );
    let expected = [
        "c.toml:2: acl[0].name: \"\" is not allowed (allowed: a text of at most 64 characters, none of them a control character)",
        "c.toml:3: acl[0].family: \"ip\" is not allowed (allowed: ipv4, ipv6)",
        "c.toml:4: acl[0].action: \"deny\" is not allowed (allowed: permit, drop, trap)",
        "c.toml:5: acl[0].plase: unknown key; did you mean place?",
        "c.toml:6: acl[0].match.dst_prot: unknown key; did you mean dst_port?",
        "c.toml:11: acl[1].match.dst_port: \"70000\" is not allowed (allowed: a port, like 23, or a range, like \"6000-6063\")",
        "c.toml:12: acl[1].match.src: an address of the other family than the rule's (allowed: addresses of the rule's family)",
        "c.toml:13: acl[1].match.vlan: \"4095\" is not allowed (allowed: a number, 1 to 4094)",
        "c.toml:14: acl[1].match.proto: \"gre\" is not allowed (allowed: icmp, tcp, udp, icmpv6, sctp, or a number, 0 to 255)",
        "c.toml:19: acl[2].match.dst_port: \"23-22\" is not allowed (allowed: a port, like 23, or a range, like \"6000-6063\")",
        "c.toml:24: acl[3].match.dst_port: ports are matched only together with a protocol that has them (allowed: proto = \"tcp\", \"udp\" or \"sctp\")",
        "c.toml:24: acl[3].match.icmp_type: a type is matched only together with the ICMP of the rule's family (allowed: proto = \"icmp\" in ipv4, \"icmpv6\" in ipv6)",
        "c.toml:29: acl[4].match.dst_port: both ranges together would be too many rules: each is bits under masks (allowed: smaller ranges, or one of the two)",
    ];
    assert_eq!(found, expected);
    let rule = "name = 'a'\nfamily = 'ipv4'\naction = 'drop'\n";
    let twice = faults(&format!("[[acl]]\n{rule}[[acl]]\n{rule}"));
    assert_eq!(
        twice,
        ["c.toml:5: acl[1].name: another rule has this name (allowed: a name for each)"]
    );
    let tagged = faults(&format!("[[acl]]\n{rule}match.in = ['p*', '!p3.100']\n"));
    let told = "c.toml:5: acl[0].match.in: \"!p3.100\" is not allowed (allowed: p3 alone, which stands for its VLANs too; a rule before this one may permit one of them)";
    assert_eq!(tagged, [told]);
    for globs in ["'p1', '!p*.100'", "'p1', '!*.100'", "'!p3.100'"] {
        let tagged = faults(&format!("[[acl]]\n{rule}match.in = [{globs}]\n"));
        assert_eq!(tagged.len(), 1, "{globs}");
    }
    let fits = "'p1', 'p2.*', '!p2.100', '!q.7'";
    assert_eq!(
        config(&format!("[[acl]]\n{rule}match.in = [{fits}]\n"))
            .acl
            .len(),
        1
    );
    assert!(faults("[acl]")[0].contains("acl: a table can't stand here"));
}
