//! Quantities such as `1500m` and `2Gi`, in the canonical form that Kubernetes writes.
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

/// Smallest part: 10⁻⁹.
const NANO: i128 = 1_000_000_000;
/// Largest magnitude; more is capped.
const MAX: i128 = i64::MAX as i128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// The canonical form of a quantity; `None` if it is none.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (nano, form) = parse(text.trim())?;
    Some(write(nano, form))
}

/// Whether this is a quantity.
///
/// # Errors
/// What Kubernetes says of one that is none.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let rest = text.trim_start_matches(['+', '-']);
    let suffix = rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let after = suffix.trim_start_matches(['e', 'E', 'i', 'n', 'u', 'm', 'k', 'K', 'M', 'G', 'T', 'P']);
    let power = after.strip_prefix(['+', '-']).unwrap_or(after);
    let is_of_form = text.len() - rest.len() <= 1 && suffix.len() < rest.len();
    if !is_of_form || !power.bytes().all(|byte| byte.is_ascii_digit()) {
        Err(FORM)
    } else if canonical(text).is_none() {
        Err("unable to parse quantity's suffix")
    } else {
        Ok(())
    }
}

/// The quantity in parts of 10⁻⁹; `None` if it is none.
pub(crate) fn nano(text: &str) -> Option<i128> {
    Some(parse(text.trim())?.0)
}

/// The quantity without what is below a thousandth, rounded away from zero; `None` if it is none.
pub(crate) fn round_up_to_milli(text: &str) -> Option<String> {
    const MILLI: i128 = NANO / 1000;
    let (nano, form) = parse(text.trim())?;
    let rest = nano % MILLI;
    let rounded = if rest == 0 { nano } else { nano - rest + MILLI * rest.signum() };
    Some(write(rounded, form))
}

fn write(nano: i128, form: Form) -> String {
    if nano == 0 {
        return "0".into();
    }
    let whole = nano % NANO == 0;
    let form = match form {
        Form::Binary if nano.abs() < 1024 * NANO || !whole => Form::Decimal,
        form => form,
    };
    if form == Form::Binary {
        let (mut number, mut power) = (nano / NANO, 0);
        while number % 1024 == 0 && power < BINARY.len() {
            number /= 1024;
            power += 1;
        }
        let suffix = power.checked_sub(1).map_or("", |index| BINARY[index].0);
        return format!("{number}{suffix}");
    }
    let (mut number, mut exponent) = (nano, -9);
    while number % 10 == 0 {
        number /= 10;
        exponent += 1;
    }
    while exponent % 3 != 0 {
        number *= 10;
        exponent -= 1;
    }
    match DECIMAL.iter().find(|(_, power)| *power == exponent).filter(|_| form == Form::Decimal) {
        Some((suffix, _)) => format!("{number}{suffix}"),
        None if exponent == 0 => number.to_string(),
        None => format!("{number}e{exponent}"),
    }
}

/// A quantity in parts of 10⁻⁹, rounded away from zero and capped, and how it is written.
fn parse(text: &str) -> Option<(i128, Form)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (factor, exponent, form) = factor(suffix)?;
    let digits = format!("{whole}{}", fraction.trim_end_matches('0'));
    let digits = digits.trim_start_matches('0');
    let scale = 9 + exponent - i32::try_from(fraction.trim_end_matches('0').len()).ok()?;
    let magnitude = magnitude(digits, factor, scale).unwrap_or(MAX * NANO).min(MAX * NANO);
    Some((if negative { -magnitude } else { magnitude }, form))
}

/// `digits × factor × 10^scale`, rounded up; `None` where that is beyond everything.
fn magnitude(digits: &str, factor: i128, scale: i32) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    if scale < -60 {
        return Some(1);
    }
    // More digits than these are below the smallest part, or above the cap.
    let cut = digits.len().saturating_sub(28);
    let scale = scale + i32::try_from(cut).ok()?;
    let is_cut = digits[digits.len() - cut..].bytes().any(|digit| digit != b'0');
    let number = digits[..digits.len() - cut].parse::<i128>().ok()?.checked_mul(factor)?;
    match u32::try_from(scale) {
        Ok(scale) => number.checked_mul(10_i128.checked_pow(scale)?),
        Err(_) => match 10_i128.checked_pow(scale.unsigned_abs()) {
            Some(divisor) => Some(number / divisor + i128::from(number % divisor != 0 || is_cut)),
            None => Some(1),
        },
    }
}

fn factor(suffix: &str) -> Option<(i128, i32, Form)> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((1024_i128.pow(*power), 0, Form::Binary));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((1, *exponent, Form::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    if exponent.trim_start_matches(['+', '-']).is_empty() {
        return None;
    }
    Some((1, exponent.parse::<i32>().ok()?.clamp(-1_000, 1_000), Form::Exponent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_written_as_kubernetes_writes_them() {
        let rows = [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("100k", "100k"),
            ("100000", "100k"),
            ("123456", "123456"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e5", "1200e3"),
            ("1E", "1E"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("+3", "3"),
            ("-1.25Mi", "-1280Ki"),
            ("9999999999999999999999", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5"),
        ];
        for (text, want) in rows {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
        for text in ["", "m", "1x", "1..2", "1.2.3", "--1", "1Kib", "e3", "1e", "1 Gi", "0x1"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_stays(text in "[+-]?[0-9]{0,30}(\\.[0-9]{0,30})?(Ki|Mi|Gi|Ei|n|u|m||k|M|E|e[+-]?[0-9]{1,3})") {
            if let Some(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Some(once));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            canonical(&text);
        }
    }
}
