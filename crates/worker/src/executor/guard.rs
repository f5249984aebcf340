//! Which addresses HTTP tasks may reach. Internal ones are refused unless the worker's configuration allows them, so that whoever
//! may submit a task can't use workers to look into their network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use reqwest::Url;

/// What HTTP tasks may reach beyond public addresses on the ports 80 and 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPolicy {
    /// Host names whose addresses are not looked at.
    pub hosts: Vec<String>,
    /// Networks that may be reached although they are internal.
    pub networks: Vec<Network>,
    /// Ports besides 80 and 443.
    pub ports: Vec<u16>,
    /// Bytes of an answer that are read.
    pub body_bytes_max: u64,
}

impl Default for HttpPolicy {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            networks: Vec::new(),
            ports: Vec::new(),
            body_bytes_max: 16 << 20,
        }
    }
}

/// A range of addresses, such as `10.1.0.0/16` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network: write 10.1.0.0/16, fd00::/8 or a single address")]
pub struct ParseNetworkError;

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| ParseNetworkError)?;
        if prefix > most {
            return Err(ParseNetworkError);
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    /// Whether `address` is in this range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |left: u128, right: u128, bits: u8| {
            let shift = u32::from(bits.saturating_sub(self.prefix));
            (left ^ right).checked_shr(shift).unwrap_or(0) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                same(u32::from(net).into(), u32::from(address).into(), 32)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => same(net.into(), address.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Why a URL or address is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// Parses a URL as a task wrote it, and refuses what could be read in two ways.
pub(crate) fn parse_url(policy: &HttpPolicy, text: &str) -> Result<Url, Refusal> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(Refusal("the URL holds a space, a control character or a backslash".into()));
    }
    let url = Url::parse(text).map_err(|error| Refusal(format!("not a URL: {error}")))?;
    check_url(policy, &url)?;
    Ok(url)
}

/// Checks everything about a URL but the addresses that its host's name resolves to.
pub(crate) fn check_url(policy: &HttpPolicy, url: &Url) -> Result<(), Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal(format!(
            "the scheme {} is not allowed: use http or https",
            url.scheme()
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal("credentials in the URL are not allowed: use a header".into()));
    }
    let port = url.port_or_known_default().unwrap_or(0);
    if !matches!(port, 80 | 443) && !policy.ports.contains(&port) {
        return Err(Refusal(format!("port {port} is not allowed by this worker")));
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(_) if is_allowed_host(policy, bare) => Ok(()),
        Ok(address) => check_address(policy, address),
        Err(_) if bare.is_empty() => Err(Refusal("the URL has no host".into())),
        Err(_) => Ok(()),
    }
}

/// Whether the addresses of this host are not looked at.
pub(crate) fn is_allowed_host(policy: &HttpPolicy, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    policy.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

/// Checks one address that is about to be connected to.
pub(crate) fn check_address(policy: &HttpPolicy, address: IpAddr) -> Result<(), Refusal> {
    let allowed = policy.networks.iter().any(|network| network.contains(address));
    if allowed || is_public(address) {
        Ok(())
    } else {
        Err(Refusal(format!("the address {address} is internal and not allowed by this worker")))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let internal = match a {
        0 | 10 | 127 | 224..=255 => true,
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => matches!((b, c), (0, 0 | 2) | (88, 99) | (168, _)),
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),
        203 => (b, c) == (0, 113),
        _ => false,
    };
    !internal
}

/// An address that holds an IPv4 address is as public as that one, for some gateway may take it there.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low), // mapped
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64
        [0x2002, high, low, ..] => embedded(high, low),            // 6to4
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => embedded(high, low), // ISATAP
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first), // global unicast and nothing else
    }
}
