//! Addresses that a webhook must not reach unless an administrator allows it: a web request made by the server must not
//! become a way into the network behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is on the open internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let denied = match address.octets() {
        // This network, private, shared (CGNAT), loopback, link-local (cloud metadata), private
        [0 | 10 | 127, ..] | [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks, documentation
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast
        [224..=255, ..] => true,
        _ => false,
    };
    !denied
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let octets = address.octets();
    let v4_at = |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    match address.segments() {
        // Mapped, NAT64 and 6to4 addresses reach the IPv4 address inside them.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => return is_public_v4(v4_at(12)),
        [0x2002, ..] => return is_public_v4(v4_at(2)),
        _ => {}
    }
    // Only 2000::/3 is given out; inside it Teredo and other protocols, documentation (twice).
    let given_out = a & 0xe000 == 0x2000;
    let denied = match a {
        0x2001 => b < 0x200 || b == 0xdb8,
        0x3fff => b < 0x1000,
        _ => false,
    };
    given_out && !denied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], public: bool) {
        for address in addresses {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn the_open_internet_is_allowed() {
        check(&["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.0.1.1"], true);
        check(&["2606:4700::1111", "2a00:1450::1", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"], true);
        check(&["2002:808:808::1"], true);
    }

    #[test]
    fn private_and_special_addresses_are_denied() {
        check(&["0.0.0.0", "10.1.2.3", "127.0.0.1", "127.9.9.9", "100.64.0.1", "100.127.255.255"], false);
        check(&["169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.8"], false);
        check(&["192.0.2.1", "198.18.0.1", "198.19.0.1", "198.51.100.1", "203.0.113.1"], false);
        check(&["224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"], false);
        check(&["::", "::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "2001::1"], false);
        check(&["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"], false);
        check(&["64:ff9b:1::1", "100::1", "3fff::1", "5f00::1"], false);
    }
}
