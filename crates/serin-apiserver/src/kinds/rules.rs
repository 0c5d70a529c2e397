//! What names, keys and ports must look like, in Kubernetes' words.
//! Source: `k8s.io/apimachinery/pkg/util/validation` and `pkg/api/validate/content`.

use super::values::Errors;
use crate::metadata::{self, DNS_LABEL, DNS_SUBDOMAIN};
use crate::selector::is_dns_subdomain;
use crate::status::FieldError;

/// Bytes of a label's value and of the name in its key at most.
const LABEL_LEN_MAX: usize = 63;
/// Bytes of a subdomain at most.
const SUBDOMAIN_LEN_MAX: usize = 253;

const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex \
    used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
    regex used for validation is '[0-9]+%')";
const ENVIRONMENT_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

pub(super) fn check_dns_label(name: &str, path: &str, errors: &mut Errors) {
    if name.len() > LABEL_LEN_MAX {
        errors.push(FieldError::invalid(path, name, "must be no more than 63 characters"));
    }
    if !is_dns_subdomain(name) {
        errors.push(FieldError::invalid(path, name, DNS_LABEL));
    } else if name.contains('.') {
        errors.push(FieldError::invalid(path, name, "must not contain dots"));
    }
}

pub(super) fn check_dns_subdomain(name: &str, path: &str, errors: &mut Errors) {
    if name.len() > SUBDOMAIN_LEN_MAX {
        errors.push(FieldError::invalid(path, name, "must be no more than 253 characters"));
    } else if !is_dns_subdomain(name) {
        errors.push(FieldError::invalid(path, name, DNS_SUBDOMAIN));
    }
}

/// A label's key, or another qualified name: a name, with the domain of who gave it before a `/`.
pub(super) fn check_label_key(key: &str, path: &str, errors: &mut Errors) {
    errors.extend(metadata::refuse_qualified_name(key).into_iter().map(|why| FieldError::invalid(path, key, why)));
}

pub(super) fn check_label_value(value: &str, path: &str, errors: &mut Errors) {
    errors.extend(metadata::refuse_label_value(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
}

pub(super) fn check_config_key(key: &str, path: &str, errors: &mut Errors) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.len() > SUBDOMAIN_LEN_MAX {
        errors.push(FieldError::invalid(path, key, "must be no more than 253 characters"));
    }
    if key.is_empty() || !key.bytes().all(plain) {
        errors.push(FieldError::invalid(path, key, CONFIG_KEY));
    }
    let why = match key {
        "." => "must not be '.'",
        ".." => "must not be '..'",
        _ if key.starts_with("..") => "must not start with '..'",
        _ => return,
    };
    errors.push(FieldError::invalid(path, key, why));
}

pub(super) fn check_environment_name(name: &str, path: &str, errors: &mut Errors) {
    if name.chars().any(|letter| !matches!(letter, ' '..='~') || letter == '=') {
        errors.push(FieldError::invalid(path, name, ENVIRONMENT_NAME));
    }
}

pub(super) fn check_http_header(name: &str, path: &str, errors: &mut Errors) {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        errors.push(FieldError::invalid(path, name, HTTP_HEADER));
    }
}

pub(super) fn check_port_number(port: i64, path: &str, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.push(FieldError::invalid(path, port, "must be between 1 and 65535, inclusive"));
    }
}

/// Says whether the name is good.
pub(super) fn check_port_name(name: &str, path: &str, errors: &mut Errors) -> bool {
    let count = errors.len();
    let mut refuse = |why: &str| errors.push(FieldError::invalid(path, name, why));
    if name.len() > 15 {
        refuse("must be no more than 15 characters");
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        refuse("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        refuse("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        refuse("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        refuse("must not begin or end with a hyphen");
    }
    errors.len() == count
}

/// A share such as `25%`, in percent; `None` if it is none.
pub(super) fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%').filter(|digits| !digits.is_empty())?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(u64::MAX))
}

pub(super) fn check_percent(text: &str, path: &str, errors: &mut Errors) {
    if percent(text).is_none() {
        errors.push(FieldError::invalid(path, text, PERCENT));
    }
}

/// A path may not lead out of where it begins.
pub(super) fn check_no_backsteps(target: &str, path: &str, errors: &mut Errors) {
    if target.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}

/// A path must be relative and stay inside.
pub(super) fn check_descending(target: &str, path: &str, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    }
    check_no_backsteps(target, path, errors);
}
