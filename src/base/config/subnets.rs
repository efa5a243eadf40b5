//! Sets of IP addresses, as `priority-subnets` names them.

use std::net::IpAddr;

/// `priority-subnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnets(Vec<(IpAddr, u8)>);

impl Subnets {
    /// Reads addresses and subnets, separated by spaces or commas; `None` if one is neither.
    pub(super) fn parse(text: &[u8]) -> Option<Subnets> {
        let text = std::str::from_utf8(text).ok()?;
        let words = text.split([' ', ',', '\t']).filter(|word| !word.is_empty());
        words.map(subnet).collect::<Option<Vec<_>>>().map(Subnets)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|(network, bits)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u32::from(*network) ^ u32::from(address)).leading_zeros() >= u32::from(*bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (u128::from(*network) ^ u128::from(address)).leading_zeros() >= u32::from(*bits)
            }
            _ => false,
        })
    }
}

fn subnet(word: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match word.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.unwrap_or(all))).filter(|(_, bits)| *bits <= all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_and_contain_their_addresses() {
        let subnets = Subnets::parse(b"10.0.0.0/8, 192.0.2.7 2001:db8::/32,::1").expect("they are subnets");
        for (address, expected) in [
            ("10.200.3.4", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.1.1.1", true),
            ("2001:db8:1::5", true),
            ("2001:db9::", false),
            ("::1", true),
        ] {
            assert_eq!(subnets.contain(address.parse().expect("an address")), expected, "{address}");
        }
        for wrong in ["127.0.0.1/99", "invalid/24", "::1/129", "10.0.0.0/", "10.0.0"] {
            assert_eq!(Subnets::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(Subnets::parse(b"").is_some_and(|none| none.is_empty()));
        assert!(Subnets::parse(b"0.0.0.0/0").is_some_and(|all| all.contain([1, 2, 3, 4].into())));
    }
}
