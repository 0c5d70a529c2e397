//! Checks that several kinds share, in Kubernetes' words.
//! Source: `k8s.io/apimachinery/pkg/util/validation`, `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::metadata::{self, DNS_LABEL, DNS_SUBDOMAIN};
use crate::selector::{is_dns_label, is_dns_subdomain};
use crate::status::FieldError;

const LABEL_LEN_MAX: usize = 63;
const SUBDOMAIN_LEN_MAX: usize = 253;
const PORT_NAME_LEN_MAX: usize = 15;

/// What Kubernetes says of an object's age.
pub(super) const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
         guaranteed to be set in happens-before order across separate operations. Clients may not set this \
         value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null \
         for lists. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Transport protocols of ports.
pub(crate) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// A text, empty where there is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The items of a list, none where there is no list.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Why `name` is no DNS label.
pub(crate) fn label(field: &str, name: &str) -> Vec<FieldError> {
    if is_dns_label(name) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if name.len() > LABEL_LEN_MAX {
        let why = format!("must be no more than {LABEL_LEN_MAX} characters");
        errors.push(FieldError::invalid(field, name, why));
    }
    if !is_subdomain_part(name) {
        let why = if is_dns_subdomain(name) { "must not contain dots" } else { DNS_LABEL };
        errors.push(FieldError::invalid(field, name, why));
    }
    errors
}

fn is_subdomain_part(part: &str) -> bool {
    // As a label, but of any length.
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

/// Why `name` is no DNS subdomain.
pub(crate) fn subdomain(field: &str, name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > SUBDOMAIN_LEN_MAX {
        let why = format!("must be no more than {SUBDOMAIN_LEN_MAX} characters");
        errors.push(FieldError::invalid(field, name, why));
    }
    if !name.split('.').all(is_subdomain_part) {
        errors.push(FieldError::invalid(field, name, DNS_SUBDOMAIN));
    }
    errors
}

/// Why `name` is no qualified name, such as a label's key.
pub(crate) fn qualified(field: &str, name: &str) -> Vec<FieldError> {
    let why = metadata::refuse_qualified_name(name);
    why.into_iter().map(|why| FieldError::invalid(field, name, why)).collect()
}

/// What is wrong with labels, or a selector by labels.
pub(crate) fn labels(field: &str, labels: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(qualified(field, key));
        let value = text(value);
        let why = metadata::refuse_label_value(value);
        errors.extend(why.into_iter().map(|why| FieldError::invalid(field, value, why)));
    }
    errors
}

/// Why `name` cannot stand in a path.
pub(crate) fn path_segment(field: &str, name: &str) -> Vec<FieldError> {
    if let "." | ".." = name {
        return vec![FieldError::invalid(field, name, format!("may not be '{name}'"))];
    }
    let found = ["/", "%"].into_iter().filter(|illegal| name.contains(illegal));
    found.map(|illegal| FieldError::invalid(field, name, format!("may not contain '{illegal}'"))).collect()
}

/// Why `number` is no port.
pub(crate) fn port_number(field: &str, number: i64) -> Option<FieldError> {
    let is_port = (1..=65535).contains(&number);
    (!is_port).then(|| FieldError::invalid(field, number, "must be between 1 and 65535, inclusive"))
}

/// Why `name` cannot be the name of a container's port.
pub(crate) fn port_name(field: &str, name: &str) -> Vec<FieldError> {
    let mut whys = Vec::new();
    if name.len() > PORT_NAME_LEN_MAX {
        whys.push(format!("must be no more than {PORT_NAME_LEN_MAX} characters"));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        whys.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        whys.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        whys.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        whys.push("must not begin or end with a hyphen".into());
    }
    whys.into_iter().map(|why| FieldError::invalid(field, name, why)).collect()
}

/// Reads an IP address as Kubernetes 1.36 does for fields that once took more.
///
/// # Errors
/// Why it is none.
pub(crate) fn address(field: &str, text: &str) -> Result<IpAddr, FieldError> {
    match text.parse() {
        Ok(IpAddr::V6(mapped)) if mapped.to_ipv4_mapped().is_some() => {
            Err(FieldError::invalid(field, text, "must not be an IPv4-mapped IPv6 address"))
        }
        Ok(address) => Ok(address),
        Err(_) if has_leading_zeros(text) => Err(FieldError::invalid(field, text, "must not have leading 0s")),
        Err(_) => {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            Err(FieldError::invalid(field, text, why))
        }
    }
}

/// Whether `text` is an IPv4 address but for zeros before its numbers, which some read as octal.
fn has_leading_zeros(text: &str) -> bool {
    let part = |part: &str| {
        let trimmed = part.trim_start_matches('0');
        if trimmed.is_empty() && !part.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
    };
    let trimmed: Vec<String> = text.split('.').map(part).collect();
    trimmed.join(".").parse::<Ipv4Addr>().is_ok()
}

/// Why traffic cannot be sent to an address.
pub(crate) fn endpoint_address(field: &str, text: &str, address: IpAddr) -> Vec<FieldError> {
    let (is_link_local, is_link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let whys = [
        (address.is_unspecified(), format!("may not be unspecified ({text})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (is_link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()),
    ];
    let whys = whys.into_iter().filter(|(holds, _)| *holds);
    whys.map(|(_, why)| FieldError::invalid(field, text, why)).collect()
}

/// Why `text` is no network, such as `10.0.0.0/8`.
pub(crate) fn network(field: &str, text: &str) -> Option<FieldError> {
    let invalid = || {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        Some(FieldError::invalid(field, text, why))
    };
    let Some((ip, bits)) = text.split_once('/') else { return invalid() };
    let (Ok(ip), Ok(prefix)) = (ip.parse::<IpAddr>(), bits.parse::<u32>()) else { return invalid() };
    if bits.starts_with('+') {
        return invalid();
    }
    if bits.len() > 1 && bits.starts_with('0') {
        return Some(FieldError::invalid(field, text, "must not have leading 0s in IP or prefix length"));
    }
    let (width, rest) = match ip {
        IpAddr::V4(ip) => (32, u128::from(ip.to_bits()) << 96),
        IpAddr::V6(ip) => (128, ip.to_bits()),
    };
    if prefix > width {
        return invalid();
    }
    let beyond = rest.checked_shl(prefix).unwrap_or(0);
    (beyond != 0).then(|| FieldError::invalid(field, text, "must not have bits set beyond the prefix length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{LABEL_VALUE, NAME_PART};

    fn whys(errors: impl IntoIterator<Item = FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| error.detail).collect()
    }

    #[test]
    fn names_are_refused_in_kubernetes_words() {
        assert_eq!(whys(label("f", "a-1")), [""; 0]);
        assert_eq!(whys(label("f", "a.b")), ["must not contain dots"]);
        assert_eq!(whys(label("f", &"a".repeat(64))), ["must be no more than 63 characters"]);
        assert_eq!(whys(label("f", "A")), [DNS_LABEL]);
        assert_eq!(whys(label("f", "")), [DNS_LABEL]);
        assert_eq!(whys(subdomain("f", "a_b")), [DNS_SUBDOMAIN]);
        assert_eq!(whys(qualified("f", "example.com/x")), [""; 0]);
        assert_eq!(whys(qualified("f", "/x")), ["prefix part must be non-empty"]);
        assert_eq!(
            whys(qualified("f", "")),
            ["name part must be non-empty".to_owned(), format!("name part {NAME_PART}")]
        );
        assert!(whys(qualified("f", "a/b/c"))[0].starts_with("a valid label key must consist of"));
        assert_eq!(whys(path_segment("f", "a/b%")), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(whys(port_name("f", "web")), [""; 0]);
        assert_eq!(whys(port_name("f", "80")), ["must contain at least one letter (a-z)"]);
        assert_eq!(whys(labels("f", &serde_json::json!({"a": "b c"}))), [LABEL_VALUE]);
    }

    #[test]
    fn addresses_are_read_strictly() {
        let rows = [
            ("10.9.8.7", None),
            ("2001:db8::ffff", None),
            ("010.9.8.7", Some("must not have leading 0s")),
            ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
            ("x", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
        ];
        for (given, why) in rows {
            assert_eq!(address("f", given).err().map(|error| error.detail).as_deref(), why, "{given}");
        }
        let rows = [
            ("10.0.0.0/8", None),
            ("::/0", None),
            ("0.0.0.0/0", None),
            ("10.0.0.1/32", None),
            ("10.0.0.1/8", Some("must not have bits set beyond the prefix length")),
            ("10.0.0.0/33", Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
            ("10.0.0.0", Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
        ];
        for (given, why) in rows {
            assert_eq!(network("f", given).map(|error| error.detail).as_deref(), why, "{given}");
        }
    }
}
