//! Values of the language that are more than a word: ranges of addresses, comparisons of codes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::address;

/// An address, or a range of them in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The address; bits beyond the prefix are zero.
    pub address: IpAddr,
    /// How many leading bits matter: 32 or 128 for a single address.
    pub prefix: u8,
}

/// A text is no [`AddressRange`] or [`CodeCondition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unparsable;

impl FromStr for AddressRange {
    type Err = Unparsable;

    fn from_str(text: &str) -> Result<Self, Unparsable> {
        let Some((address, digits)) = text.split_once('/') else {
            // As it may have been reported.
            let address = address::read(text).ok_or(Unparsable)?;
            return Ok(Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } });
        };
        let address: IpAddr = address.parse().map_err(|_| Unparsable)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Unparsable);
        }
        let prefix: u8 = digits.parse().ok().filter(|prefix| *prefix <= bits).ok_or(Unparsable)?;
        // An IPv4 address in IPv6 is stored as itself.
        Ok(match (address.to_canonical(), prefix.checked_sub(96)) {
            (IpAddr::V4(inner), Some(prefix)) if address.is_ipv6() => {
                Self { address: mask(IpAddr::V4(inner), prefix), prefix }
            }
            _ => Self { address: mask(address, prefix), prefix },
        })
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How a code compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// With the longer of two that begin alike first.
    const ALL: [Self; 6] =
        [Self::NotEqual, Self::LessOrEqual, Self::GreaterOrEqual, Self::Equal, Self::Less, Self::Greater];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// What a code must be. An entry without a code matches none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeCondition {
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub code: i32,
}

impl FromStr for CodeCondition {
    type Err = Unparsable;

    fn from_str(text: &str) -> Result<Self, Unparsable> {
        let found = Comparison::ALL.into_iter().find_map(|c| Some((c, text.strip_prefix(c.as_str())?)));
        let (comparison, digits) = found.unwrap_or((Comparison::Equal, text));
        Ok(Self { comparison, code: digits.parse().map_err(|_| Unparsable)? })
    }
}

impl fmt::Display for CodeCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.comparison.as_str(), self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_are_read_and_masked() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/0", Some("0.0.0.0/0")),
            ("fd00::1", Some("fd00::1/128")),
            ("fd00::1:2/112", Some("fd00::1:0/112")),
            ("::/0", Some("::/0")),
            ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
            ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
            ("10.1.2.3/33", None),
            ("10.1.2.3/", None),
            ("10.1.2.3/+8", None),
            ("10.1.2", None),
            ("localhost", Some("127.0.0.1/32")),
            ("1.2.3.4:5678", Some("1.2.3.4/32")),
            ("fe80::1%eth0", Some("fe80::1/128")),
            ("[fd00::1]:22", Some("fd00::1/128")),
            ("fe80::1%eth0/64", None),
        ] {
            assert_eq!(text.parse::<AddressRange>().ok().map(|range| range.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn codes_compare_in_every_way() {
        for (text, expected) in [
            ("0", Some("=0")),
            ("=7", Some("=7")),
            ("!=0", Some("!=0")),
            ("<400", Some("<400")),
            ("<=400", Some("<=400")),
            (">400", Some(">400")),
            (">=400", Some(">=400")),
            (">=-1", Some(">=-1")),
            ("=>400", None),
            (">", None),
            ("4294967296", None),
        ] {
            assert_eq!(text.parse::<CodeCondition>().ok().map(|c| c.to_string()).as_deref(), expected, "{text}");
        }
    }
}
