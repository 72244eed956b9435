//! Reads what a host shows in files about itself, for `doctor`: sysctls of this network namespace, and which other network
//! manager looks after a link. On demand only; what is absent is absent.
//!
//! `NetworkManager` keeps a file a device in `/run/NetworkManager/devices`, systemd-networkd one a link in
//! `/run/systemd/netif/links`, both named by the link's index; so nobody needs to be asked, and nothing is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::lookup;
use crate::model::{
    HostFacts, HostQuestion, IfIndex, IfName, LinkFacts, LinkSysctls, Networkd, Prefix,
};

/// Where systemd looks for a file of its own, the first that is found being the one; and for `networkd.conf.d`, of
/// which all are read in the order of their names.
const SYSTEMD: [&str; 4] = [
    "etc/systemd",
    "run/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
];

/// Reads everything that is asked. Takes some file reads a link, and a question to the kernel a prefix.
pub fn read(question: &HostQuestion) -> HostFacts {
    let HostQuestion { links, prefixes } = question;
    let route = |prefix: &Prefix| Some((*prefix, lookup(prefix.addr(), None)?));
    HostFacts {
        routes: prefixes.iter().filter_map(route).collect(),
        ..read_below(Path::new("/"), links)
    }
}

fn read_below(root: &Path, links: &[(IfIndex, IfName)]) -> HostFacts {
    let net = root.join("proc/sys/net");
    let facts_of = |(dev, name): &(IfIndex, IfName)| {
        let facts = LinkFacts {
            sysctls: link_sysctls(&net, name),
            network_manager: text(&root.join(format!("run/NetworkManager/devices/{dev}")))
                .is_some_and(|text| is_managed(&text)),
            networkd: text(&root.join(format!("run/systemd/netif/links/{dev}")))
                .is_some_and(|text| is_configured(&text)),
        };
        (*dev, facts)
    };
    HostFacts {
        all: link_sysctls(&net, "all"),
        links: links.iter().map(facts_of).collect(),
        routes: BTreeMap::new(),
        forwarding6: number(&net.join("ipv6/conf/all/forwarding")),
        nexthop_compat_mode: number(&net.join("ipv4/nexthop_compat_mode")),
        multipath_hash: ["ipv4", "ipv6"]
            .map(|family| number(&net.join(family).join("fib_multipath_hash_policy"))),
        networkd: root
            .join("run/systemd/netif/links")
            .exists()
            .then(|| networkd_settings(&networkd_texts(root))),
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: &Path) -> Option<u8> {
    text(path)?.trim().parse().ok()
}

fn link_sysctls(net: &Path, name: &str) -> LinkSysctls {
    let conf = net.join("ipv4/conf").join(name);
    let of = |key| number(&conf.join(key));
    LinkSysctls {
        forwarding: of("forwarding"),
        rp_filter: of("rp_filter"),
        arp_ignore: of("arp_ignore"),
        arp_filter: of("arp_filter"),
        ignore_linkdown: of("ignore_routes_with_linkdown"),
    }
}

/// A device's state file is there for devices that are left alone, too: without the word nobody has decided to manage it.
fn is_managed(text: &str) -> bool {
    let managed = text.lines().find_map(|line| line.strip_prefix("managed="));
    managed.is_some_and(|value| !is_no(value))
}

fn is_configured(text: &str) -> bool {
    let state = text
        .lines()
        .find_map(|line| line.strip_prefix("ADMIN_STATE="));
    state.is_some_and(|state| !matches!(state.trim(), "unmanaged" | "linger" | "failed"))
}

/// `parse_boolean` of systemd.
fn is_no(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "0" | "no" | "n" | "false" | "f" | "off"
    )
}

/// All that is configured of systemd-networkd, the weakest first.
fn networkd_texts(root: &Path) -> Vec<String> {
    let main = SYSTEMD
        .iter()
        .find_map(|dir| text(&root.join(dir).join("networkd.conf")));
    let mut drop_ins: Vec<PathBuf> = Vec::new();
    for dir in SYSTEMD {
        let entries = fs::read_dir(root.join(dir).join("networkd.conf.d"));
        for entry in entries.into_iter().flatten().flatten() {
            let known = drop_ins
                .iter()
                .any(|known| known.ends_with(entry.file_name()));
            if !known && entry.path().extension().is_some_and(|end| end == "conf") {
                drop_ins.push(entry.path());
            }
        }
    }
    drop_ins.sort_unstable_by(|a, b| a.file_name().cmp(&b.file_name()));
    let drop_ins = drop_ins.iter().filter_map(|path| text(path));
    main.into_iter().chain(drop_ins).collect()
}

fn networkd_settings(texts: &[String]) -> Networkd {
    let mut settings = Networkd {
        foreign_routes: true,
        foreign_next_hops: true,
    };
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key.trim() {
            "ManageForeignRoutes" => settings.foreign_routes = !is_no(value),
            "ManageForeignNextHops" => settings.foreign_next_hops = !is_no(value),
            _ => {}
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_read_as_they_write_them() {
        let root = std::env::temp_dir().join(format!("frr-offload-host-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let dev = |n| IfIndex::new(n).unwrap();
        let links = [(dev(3), "eth0.100".into()), (dev(4), "eth1".into())];
        assert_eq!(read_below(&root, &links).networkd, None);
        write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n");
        write("proc/sys/net/ipv4/conf/eth0.100/arp_ignore", "8\n");
        write("proc/sys/net/ipv4/nexthop_compat_mode", "1\n");
        write("proc/sys/net/ipv6/fib_multipath_hash_policy", "2\n");
        write("run/NetworkManager/devices/3", "[device]\nmanaged=true\n");
        write("run/NetworkManager/devices/4", "[device]\nmanaged=false\n");
        write("run/systemd/netif/links/3", "# x\nADMIN_STATE=unmanaged\n");
        write("run/systemd/netif/links/4", "ADMIN_STATE=configured\n");
        write(
            "usr/lib/systemd/networkd.conf",
            "[Network]\nManageForeignRoutes=yes\n",
        );
        write(
            "etc/systemd/networkd.conf",
            "[Network]\n#ManageForeignRoutes=no\n",
        );
        let facts = read_below(&root, &links);
        assert_eq!(facts.all.rp_filter, Some(1));
        assert_eq!(facts.nexthop_compat_mode, Some(1));
        assert_eq!(facts.multipath_hash, [None, Some(2)]);
        let [first, second] = [3, 4].map(|n| facts.links[&dev(n)].clone());
        assert_eq!(first.sysctls.arp_ignore, Some(8));
        assert_eq!((first.network_manager, first.networkd), (true, false));
        assert_eq!((second.network_manager, second.networkd), (false, true));
        let settings = |facts: HostFacts| {
            let networkd = facts.networkd.unwrap();
            (networkd.foreign_routes, networkd.foreign_next_hops)
        };
        assert_eq!(settings(facts), (true, true));
        // Of two of one name the one in /etc counts; of others, the last.
        write(
            "usr/lib/systemd/networkd.conf.d/10-a.conf",
            "ManageForeignNextHops=no\n",
        );
        write(
            "etc/systemd/networkd.conf.d/10-a.conf",
            "ManageForeignRoutes = yes\n",
        );
        write(
            "run/systemd/networkd.conf.d/20-b.conf",
            "ManageForeignRoutes=no\n",
        );
        assert_eq!(settings(read_below(&root, &links)), (false, true));
        fs::remove_dir_all(&root).unwrap();
    }
}
