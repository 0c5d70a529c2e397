//! What an answer predicts, in brief, for whoever passes it on.

use std::fmt::Write as _;

/// The first row's class and score, and the number of rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prediction {
    /// The predicted class; `None` for a regressor.
    pub class: Option<String>,
    /// With two classes, the probability (or decision value) of the second; with more, the largest; of a regressor,
    /// the value. `None` where there is no number, or it is not finite.
    pub score: Option<f64>,
    /// Rows of the request.
    pub rows: u32,
}

/// Longest class that travels in the header, in bytes before encoding. A longer one is left out.
const CLASS_MAX: usize = 256;

impl Prediction {
    /// Name of the response header.
    pub const HEADER: &'static str = "serin-prediction";

    /// The header's value: `class=…;score=…;rows=…`. The class is percent-encoded; class and score may be empty.
    pub fn to_header(&self) -> String {
        let mut out = String::with_capacity(48);
        out.push_str("class=");
        for &byte in self.class.as_deref().filter(|class| class.len() <= CLASS_MAX).unwrap_or_default().as_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                byte => {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        out.push_str(";score=");
        if let Some(score) = self.score.filter(|score| score.is_finite()) {
            let mut digits = zmij::Buffer::new();
            // A 32-bit score is written as such: the same digits as in the answer's body.
            let single = score as f32;
            out.push_str(match f64::from(single) == score {
                true => digits.format_finite(single),
                false => digits.format_finite(score),
            });
        }
        out.push_str(";rows=");
        out.push_str(itoa::Buffer::new().format(self.rows));
        out
    }

    /// Reads a header's value; `None` when it is not one.
    ///
    /// An empty class reads as `None`, whether there was none or its text was empty.
    pub fn from_header(value: &str) -> Option<Prediction> {
        let (class, rest) = value.strip_prefix("class=")?.split_once(";score=")?;
        let (score, rows) = rest.split_once(";rows=")?;
        let class = match class {
            "" => None,
            class => Some(decode(class)?),
        };
        let score = match score {
            "" => None,
            score => Some(score.parse::<f64>().ok().filter(|score| score.is_finite())?),
        };
        Some(Prediction { class, score, rows: rows.parse().ok()? })
    }
}

fn decode(class: &str) -> Option<String> {
    let mut out = Vec::with_capacity(class.len());
    let mut bytes = class.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_read_as_documented() {
        let rows = [
            (Some(">50K"), Some(0.87f32.into()), 1, "class=%3E50K;score=0.87;rows=1"),
            (Some("1"), Some(0.1), 32, "class=1;score=0.1;rows=32"),
            (None, Some(152.25), 1, "class=;score=152.25;rows=1"),
            (None, None, 7, "class=;score=;rows=7"),
            (None, Some(f64::NAN), 1, "class=;score=;rows=1"),
        ];
        for (class, score, rows, want) in rows {
            let prediction = Prediction { class: class.map(str::to_owned), score, rows };
            assert_eq!(prediction.to_header(), want);
        }
        for wrong in ["", "class=a", "class=a;score=x;rows=1", "class=%zz;score=;rows=1", "class=;score=inf;rows=1"] {
            assert_eq!(Prediction::from_header(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_prediction_survives_its_header(class in "\\PC{1,20}", score in any::<f64>(), rows in any::<u32>()) {
            let score = Some(score).filter(|score| score.is_finite());
            let prediction = Prediction { class: Some(class), score, rows };
            let read = Prediction::from_header(&prediction.to_header()).unwrap();
            prop_assert_eq!(read, prediction);
        }
    }
}
