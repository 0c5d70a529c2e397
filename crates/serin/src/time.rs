//! Times for people.

use std::time::{SystemTime, UNIX_EPOCH};

use serin_api::Millis;

/// The time now, in milliseconds since the Unix epoch.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Time of an RFC 3339 text.
pub fn parse(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Millis(at.as_millisecond()))
}

/// How long ago an RFC 3339 time was; `<unknown>` for other texts.
pub fn age_of(text: &str) -> String {
    parse(text).map_or_else(|| "<unknown>".to_owned(), |at| short(now().0 - at.0))
}

/// How long ago a time was.
pub fn ago(at: Millis) -> String {
    short(now().0 - at.0)
}

/// A duration in at most two units, as kubectl writes ages: `45s`, `5m30s`, `15m`, `3h20m`, `2d`.
pub fn short(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        _ => two(days, "d", if days < 8 { hours % 24 } else { 0 }, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        let rows = [
            (-5_000, "0s"),
            (119_000, "119s"),
            (120_000, "2m"),
            (330_000, "5m30s"),
            (900_000, "15m"),
            (12_000_000, "3h20m"),
            (100_000_000, "27h"),
            (200_000_000, "2d7h"),
            (864_000_000, "10d"),
        ];
        for (ms, text) in rows {
            assert_eq!(short(ms), text);
        }
    }

    #[test]
    fn rfc_3339_is_read_and_other_text_is_unknown() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(Millis(1000)));
        assert_eq!(age_of("yesterday"), "<unknown>");
    }
}
