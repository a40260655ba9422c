//! Addresses as others write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address, with a port or without; `localhost` is 127.0.0.1, and an IPv4 address in IPv6 is itself. A zone is left out: it is a
/// name on the client's machine, and PostgreSQL cannot store it.
pub fn read(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let (bare, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((bare, "")) => (bare, None),
        Some((bare, port)) => (bare, Some(port.strip_prefix(':')?)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    let (address, zone) = bare.split_once('%').map_or((bare, None), |(address, zone)| (address, Some(zone)));
    let address = match address.parse::<IpAddr>() {
        // Only addresses of IPv6 have zones, and only they are in brackets.
        Ok(IpAddr::V4(_)) if zone.is_some() || bare != text => return None,
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_unknown() {
        for (text, same) in [
            ("10.1.2.3", "10.1.2.3"),
            (" 10.1.2.3\n", "10.1.2.3"),
            ("localhost", "127.0.0.1"),
            ("LOCALHOST", "127.0.0.1"),
            ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%eth0]:22", "fe80::1"),
            ("[fd00::1]", "fd00::1"),
            ("[fd00::1]:22", "fd00::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:22", "192.0.2.1"),
            ("10.0.0.1:22", "10.0.0.1"),
        ] {
            assert_eq!(read(text), Some(same.parse().unwrap()), "{text:?}");
        }
        for unreadable in [
            "",
            "pipe",
            "UNKNOWN",
            "10.0.0.1:",
            "10.0.0.1:x",
            "10.0.0.1%eth0",
            "[10.0.0.1]",
            "[fd00::1]x",
            "300.1.1.1",
            "\0",
        ] {
            assert_eq!(read(unreadable), None, "{unreadable:?}");
        }
    }
}
