//! Tricks to reach what is internal, and what has to stay reachable.

use std::net::IpAddr;

use super::guard::{HttpPolicy, Network, ParseNetworkError, check_address, parse_url};

/// Each of these is refused without asking anybody for an address.
const REFUSED_URLS: &[&str] = &[
    // Loopback in every spelling.
    "http://127.0.0.1/",
    "http://127.0.0.1:80/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.255.255.254/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0X7F.0x0.0x0.0x1/",
    "http://127.0.0.1./",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://①②⑦.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://%31%32%37.0.0.1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000::0001]/",
    "http://[::]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::FFFF:7F00:0001]/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://0/",
    "http://0.0.0.0/",
    "http://0x0/",
    "http://00/",
    "http://0.1.2.3/",
    // Private networks.
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://0xa.0.0.1/",
    "http://012.0.0.1/",
    "http://167772161/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://192.168.1/",
    "http://3232235521/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:c0a8:1]/",
    // Metadata services and link-local addresses.
    "http://169.254.169.254/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[fe80::a9fe:a9fe]/",
    "http://[febf::1]/",
    "http://100.100.100.200/",
    // Carrier-grade NAT, benchmarks, documentation, protocol assignments, relays.
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://198.18.0.1/",
    "http://198.19.255.255/",
    "http://192.0.0.1/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.51.100.7/",
    "http://203.0.113.7/",
    "http://192.88.99.1/",
    // Multicast, reserved, broadcast.
    "http://224.0.0.1/",
    "http://239.255.255.255/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://4294967295/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    // Unique and site-local addresses.
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[fdff::1]/",
    "http://[fec0::1]/",
    // IPv4 inside IPv6.
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::10.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a00:1::1]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[2002:c0a8:101::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[100::1]/",
    "http://[2606:4700::5efe:10.0.0.1]/",
    "http://[2606:4700::200:5efe:7f00:1]/",
    // Ports.
    "http://8.8.8.8:22/",
    "http://8.8.8.8:81/",
    "http://8.8.8.8:6379/",
    "http://8.8.8.8:8080/",
    "https://8.8.8.8:444/",
    "http://8.8.8.8:0/",
    "http://8.8.8.8:65535/",
    "http://8.8.8.8:65616/",
    // Schemes.
    "file:///etc/passwd",
    "ftp://8.8.8.8/",
    "gopher://8.8.8.8:80/_x",
    "dict://8.8.8.8:80/x",
    "ldap://8.8.8.8/",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "data:text/plain,x",
    "jar:http://8.8.8.8!/",
    "ws://8.8.8.8/",
    "//8.8.8.8/",
    "8.8.8.8",
    "",
    "http:",
    "http://",
    "http:///",
    // Credentials, and hosts hidden behind them.
    "http://user@8.8.8.8/",
    "http://user:secret@8.8.8.8/",
    "http://:secret@8.8.8.8/",
    "http://8.8.8.8@127.0.0.1/",
    "http://8.8.8.8:80@127.0.0.1/",
    "http://8.8.8.8#@127.0.0.1/ ",
    "http://127.0.0.1#@8.8.8.8/",
    "http://127.0.0.1?@8.8.8.8/",
    "http://127.0.0.1/@8.8.8.8",
    "http://8.8.8.8%40127.0.0.1/",
    // What two parsers read in two ways.
    "http://8.8.8.8\\@127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http://127.0.0.1\\.8.8.8.8/",
    "http:127.0.0.1/",
    "http:/127.0.0.1/",
    "http:////127.0.0.1/",
    "HTTP://127.0.0.1/",
    "hTtP://[::1]/",
    " http://8.8.8.8/",
    "http://8.8.8.8/\t",
    "ht\ntp://8.8.8.8/",
    "http://8.8.8.8/\r\nHost: x",
    "http://12\t7.0.0.1/",
    "http://8.8.8.8/a b",
    "http://8.8.8.8/\u{a0}",
    "http://8.8.8.8\u{0}/",
    "http://256.0.0.1/",
    "http://1.2.3.4.5/",
    "http://127.0.0.1.1/",
    "http://0x100000000/",
    "http://[::1/",
    "http://::1/",
    "http://[::1%25eth0]/",
    "http://[fe80::1%25lo]/",
    "http://[v1.x]/",
    "http://a b/",
    "http://<x>/",
    "http://\u{ad}/",
];

const ALLOWED_URLS: &[&str] = &[
    "http://8.8.8.8/",
    "https://1.1.1.1/",
    "http://1.1.1.1:443/",
    "https://1.1.1.1:80/x?y=z#w",
    "http://example.com/",
    "https://EXAMPLE.com./path",
    "http://[2606:4700:4700::1111]/",
    "http://[64:ff9b::808:808]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[2002:808:808::1]/",
    "http://9.255.255.255/",
    "http://11.0.0.0/",
    "http://100.63.255.255/",
    "http://100.128.0.0/",
    "http://126.255.255.255/",
    "http://128.0.0.0/",
    "http://169.253.255.255/",
    "http://169.255.0.0/",
    "http://172.15.255.255/",
    "http://172.32.0.0/",
    "http://192.167.255.255/",
    "http://192.169.0.0/",
    "http://198.17.255.255/",
    "http://198.20.0.0/",
    "http://223.255.255.255/",
];

#[test]
fn no_trick_reaches_an_internal_address() {
    let policy = HttpPolicy::default();
    assert!(REFUSED_URLS.len() >= 100);
    for url in REFUSED_URLS {
        assert!(parse_url(&policy, url).is_err(), "{url:?} was let through");
    }
}

#[test]
fn public_addresses_stay_reachable_up_to_the_edge_of_the_internal_ones() {
    let policy = HttpPolicy::default();
    for url in ALLOWED_URLS {
        assert_eq!(parse_url(&policy, url).err(), None, "{url}");
    }
}

#[test]
fn allowed_networks_hosts_and_ports_are_allowed_and_nothing_beside_them() {
    let policy = HttpPolicy {
        hosts: vec!["127.0.0.9".into()],
        networks: vec!["10.1.0.0/16".parse().expect("a network"), "fd00::/8".parse().expect("one")],
        ports: vec![8_080],
        ..HttpPolicy::default()
    };
    let allowed = |url: &str| parse_url(&policy, url).is_ok();
    assert!(allowed("http://10.1.0.0/") && allowed("http://10.1.255.255:8080/"));
    assert!(!allowed("http://10.0.255.255/") && !allowed("http://10.2.0.0/"));
    assert!(allowed("http://[fd00::1]/") && !allowed("http://[fc00::1]/"));
    assert!(allowed("http://127.0.0.9/") && !allowed("http://127.0.0.8/"));
    assert!(!allowed("http://8.8.8.8:8079/") && !allowed("http://8.8.8.8:8081/"));
}

#[test]
fn every_address_a_name_resolves_to_is_judged_alike() {
    let policy = HttpPolicy::default();
    for (address, public) in [("127.0.0.1", false), ("::1", false), ("8.8.8.8", true)] {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(check_address(&policy, address).is_ok(), public, "{address}");
    }
}

#[test]
fn networks_parse_and_contain_what_they_say() {
    let contains = |network: &str, address: &str| {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    };
    assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
    assert!(contains("::/0", "ff::1") && !contains("::/0", "1.2.3.4"));
    assert!(contains("10.0.0.4/31", "10.0.0.5") && !contains("10.0.0.4/31", "10.0.0.6"));
    assert!(contains("::1", "::1") && !contains("::1", "::2"));
    for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "x/8"] {
        assert_eq!(wrong.parse::<Network>(), Err(ParseNetworkError), "{wrong}");
    }
}
