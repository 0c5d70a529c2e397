//! `format` of strings and integers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine as _;

use crate::selector::{is_dns_label, is_dns_subdomain};

/// A format that is checked. Others are allowed in a schema and mean nothing, as in kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    DateTime,
    Date,
    Duration,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Byte,
    ShortName,
    LongName,
    Int32,
    Int64,
}

const NAMES: [(&str, Format); 18] = [
    ("date-time", Format::DateTime),
    ("datetime", Format::DateTime),
    ("date", Format::Date),
    ("duration", Format::Duration),
    ("uri", Format::Uri),
    ("email", Format::Email),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("cidr", Format::Cidr),
    ("mac", Format::Mac),
    ("uuid", Format::Uuid),
    ("uuid4", Format::Uuid),
    ("byte", Format::Byte),
    ("k8s-short-name", Format::ShortName),
    ("k8s-long-name", Format::LongName),
    ("int32", Format::Int32),
    ("int64", Format::Int64),
];

impl Format {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Whether a string has this format; number formats say nothing about strings.
    pub(crate) fn holds(self, text: &str) -> bool {
        match self {
            Self::DateTime => text.parse::<jiff::Timestamp>().is_ok() && text.contains(['T', 't']),
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::Duration => is_duration(text),
            Self::Uri => text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/')),
            Self::Email => is_email(text),
            Self::Hostname => text.len() <= 253 && text.split('.').all(|part| is_dns_label(&part.to_ascii_lowercase())),
            Self::Ipv4 => is_ipv4(text),
            Self::Ipv6 => Ipv6Addr::from_str(text).is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid => is_uuid(text),
            Self::Byte => base64::engine::general_purpose::STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok(),
            Self::ShortName => is_dns_label(text),
            Self::LongName => is_dns_subdomain(text),
            Self::Int32 | Self::Int64 => true,
        }
    }
}

/// A Go duration: `1h30m`, `-1.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        if rest[..number].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[number..];
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "w"].iter().find(|unit| {
            rest.strip_prefix(**unit)
                .is_some_and(|after| after.is_empty() || after.starts_with(|l: char| l.is_ascii_digit()))
        }) else {
            return false;
        };
        rest = &rest[unit.len()..];
    }
    !text.is_empty()
}

/// An address of version 4; a part may have zeros in front.
fn is_ipv4(text: &str) -> bool {
    let parts = text.split('.').map(|part| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        rest => rest,
    });
    Ipv4Addr::from_str(&parts.collect::<Vec<_>>().join(".")).is_ok()
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, host)| {
        !local.is_empty()
            && !local.contains(char::is_whitespace)
            && !host.is_empty()
            && !host.contains(char::is_whitespace)
    })
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let max = match IpAddr::from_str(address) {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= max)
    })
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8) && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|letter| *letter != '-').collect();
    hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_they_should() {
        let rows = [
            ("date-time", "2026-11-24T23:00:00Z", true),
            ("date-time", "2026-11-24T23:00:00.5+01:00", true),
            ("date-time", "2026-11-24", false),
            ("date-time", "x", false),
            ("date", "2026-11-24", true),
            ("date", "2026-13-24", false),
            ("duration", "1h30m", true),
            ("duration", "1.5s", true),
            ("duration", "0", true),
            ("duration", "5", false),
            ("duration", "", false),
            ("duration", "1x", false),
            ("uri", "https://example.com/a?b=c", true),
            ("uri", "not a uri", false),
            ("email", "a@b.c", true),
            ("email", "a", false),
            ("hostname", "a.example.com", true),
            ("hostname", "-a", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "10.0.0.256", false),
            ("ipv6", "::1", true),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("mac", "01:23:45:67:89:ab", true),
            ("mac", "01:23", false),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("uuid", "123", false),
            ("byte", "aGk=", true),
            ("byte", "aGk", false),
        ];
        for (format, text, want) in rows {
            assert_eq!(Format::parse(format).map(|format| format.holds(text)), Some(want), "{format} {text:?}");
        }
        assert_eq!(Format::parse("unheard-of"), None);
    }
}
