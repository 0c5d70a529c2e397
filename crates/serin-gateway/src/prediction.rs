//! The `serin-prediction` header, by which our model servers tell the gateway what they predicted.
//!
//! Form: `class=<percent-encoded>;score=<decimal>;rows=<count>`, all optional, in any order. The gateway takes the header off
//! the answer. It is a hint of our own servers, so what does not follow the form is ignored, field by field.

/// What an answer predicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Predicted class of the (first) row.
    pub class: Option<Box<str>>,
    /// Score of the (first) row; may be NaN, which is an event of its own.
    pub score: Option<f64>,
    /// Rows in the answer; 1 where the header does not say.
    pub rows: u64,
}

/// Longest header that is looked at, in bytes.
const HEADER_MAX: usize = 1024;

impl Prediction {
    /// Reads the header's value. `None` if it says neither class nor score.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Prediction> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= HEADER_MAX)?;
        let mut prediction = Prediction { rows: 1, ..Prediction::default() };
        for field in text.split(';') {
            match field.trim().split_once('=') {
                Some(("class", class)) => prediction.class = percent_decode(class),
                Some(("score", score)) => prediction.score = score.parse().ok(),
                Some(("rows", rows)) => prediction.rows = rows.parse().unwrap_or(1),
                _ => {}
            }
        }
        (prediction.class.is_some() || prediction.score.is_some()).then_some(prediction)
    }

    /// Class for a receipt: that of a one-row answer.
    #[must_use]
    pub fn row_class(&self) -> Option<&str> {
        self.class.as_deref().filter(|_| self.rows == 1)
    }

    /// Score for a receipt: that of a one-row answer, if it is a number.
    #[must_use]
    pub fn row_score(&self) -> Option<f64> {
        self.score.filter(|score| self.rows == 1 && score.is_finite())
    }
}

/// Percent-decoding; `None` for a text that is not UTF-8 or has a broken escape. An empty class is none.
fn percent_decode(text: &str) -> Option<Box<str>> {
    if text.is_empty() {
        return None;
    }
    if !text.contains(['%', '+']) {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                tail
            }
            (b'%', _) => return None,
            (b'+', tail) => {
                bytes.push(b' ');
                tail
            }
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok().map(String::into_boxed_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_field_by_field() {
        let rows = [
            ("class=%3E50K;score=0.75;rows=1", Some((Some(">50K"), Some(0.75), 1))),
            ("score=0.5", Some((None, Some(0.5), 1))),
            ("rows=7;score=-1e3;class=a+b", Some((Some("a b"), Some(-1000.0), 7))),
            (" class=x ; score=zero", Some((Some("x"), None, 1))),
            ("class=%zz;score=1", Some((None, Some(1.0), 1))),
            ("class=%f;score=1", Some((None, Some(1.0), 1))),
            ("class=%ff;score=1", Some((None, Some(1.0), 1))),
            ("class=", None),
            ("rows=3", None),
            ("", None),
        ];
        for (text, want) in rows {
            let got = Prediction::parse(text.as_bytes());
            let got = got.as_ref().map(|p| (p.class.as_deref(), p.score, p.rows));
            assert_eq!(got, want, "{text}");
        }
        assert!(Prediction::parse(b"score=NaN").is_some_and(|p| p.score.is_some_and(f64::is_nan)));
        assert_eq!(Prediction::parse(&[0xff; 8]), None);
        assert_eq!(Prediction::parse(format!("class={}", "x".repeat(2000)).as_bytes()), None);
    }

    #[test]
    fn receipts_get_predictions_of_one_row_only() {
        let of = |text: &str| Prediction::parse(text.as_bytes()).map(|p| (p.row_class().map(str::len), p.row_score()));
        assert_eq!(of("class=ab;score=1;rows=1"), Some((Some(2), Some(1.0))));
        assert_eq!(of("class=ab;score=1;rows=2"), Some((None, None)));
        assert_eq!(of("score=inf"), Some((None, None)));
    }
}
