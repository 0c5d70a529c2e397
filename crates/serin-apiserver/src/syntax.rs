//! What Go's JSON reader says of a text that is no JSON. Clients show it to people, and some match on it.

/// What is to come next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    /// After `[`.
    ValueOrEnd,
    Key,
    /// After `{`.
    KeyOrEnd,
    /// A value or a key is done.
    Rest,
}

/// What a text is within.
#[derive(Clone, Copy)]
enum Within {
    /// An object, at a key.
    Key,
    /// An object, at the value of a key.
    Field,
    List,
}

/// Levels that Go reads at most.
const LEVELS_MAX: usize = 10_000;

enum Fault {
    End,
    Levels,
    Letter(u8, String),
}

/// Go's words for the first thing that is wrong with the syntax of a text; none if nothing is.
pub(crate) fn error(text: &[u8]) -> Option<String> {
    match (Reader { text, at: 0 }).read() {
        Ok(()) => None,
        Err(Fault::End) => Some("unexpected end of JSON input".to_owned()),
        Err(Fault::Levels) => Some("exceeded max depth".to_owned()),
        Err(Fault::Letter(letter, place)) => Some(format!("invalid character {} {place}", quoted(letter))),
    }
}

/// A byte as Go quotes one, taken for the letter of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0..b' ' | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn read(mut self) -> Result<(), Fault> {
        let mut within = Vec::new();
        let mut next = Next::Value;
        loop {
            while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
                self.at += 1;
            }
            let Some(&letter) = self.text.get(self.at) else {
                return if matches!(next, Next::Rest) && within.is_empty() { Ok(()) } else { Err(Fault::End) };
            };
            let wrong = |place: &str| Err(Fault::Letter(letter, place.to_owned()));
            self.at += 1;
            next = match (next, letter) {
                (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => {
                    within.pop();
                    Next::Rest
                }
                (Next::Value | Next::ValueOrEnd, b'{' | b'[') => {
                    if within.len() == LEVELS_MAX {
                        return Err(Fault::Levels);
                    }
                    let is_object = letter == b'{';
                    within.push(if is_object { Within::Key } else { Within::List });
                    if is_object { Next::KeyOrEnd } else { Next::ValueOrEnd }
                }
                (_, b'"') if !matches!(next, Next::Rest) => {
                    self.string()?;
                    Next::Rest
                }
                (Next::Value | Next::ValueOrEnd, _) => {
                    match letter {
                        b'-' | b'0'..=b'9' => self.number(letter)?,
                        b't' => self.literal("true")?,
                        b'f' => self.literal("false")?,
                        b'n' => self.literal("null")?,
                        _ => return wrong("looking for beginning of value"),
                    }
                    Next::Rest
                }
                (Next::Key | Next::KeyOrEnd, _) => return wrong("looking for beginning of object key string"),
                (Next::Rest, _) => match (within.last_mut(), letter) {
                    (None, _) => return wrong("after top-level value"),
                    (Some(place @ Within::Key), b':') => {
                        *place = Within::Field;
                        Next::Value
                    }
                    (Some(place @ Within::Field), b',') => {
                        *place = Within::Key;
                        Next::Key
                    }
                    (Some(Within::List), b',') => Next::Value,
                    (Some(Within::Field), b'}') | (Some(Within::List), b']') => {
                        within.pop();
                        Next::Rest
                    }
                    (Some(Within::Key), _) => return wrong("after object key"),
                    (Some(Within::Field), _) => return wrong("after object key:value pair"),
                    (Some(Within::List), _) => return wrong("after array element"),
                },
            };
        }
    }

    /// The next byte; at the end of the text a space, as for Go.
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(b' ')
    }

    /// Reads one byte that must be of a kind.
    fn expect(&mut self, is_right: impl Fn(u8) -> bool, place: impl Into<String>) -> Result<u8, Fault> {
        let letter = self.peek();
        self.at += 1;
        if is_right(letter) { Ok(letter) } else { Err(Fault::Letter(letter, place.into())) }
    }

    fn string(&mut self) -> Result<(), Fault> {
        loop {
            let Some(&letter) = self.text.get(self.at) else { return Err(Fault::End) };
            self.at += 1;
            match letter {
                b'"' => return Ok(()),
                b'\\' => {
                    let is_escape = |letter| br#"bfnrtu\/""#.contains(&letter);
                    if self.expect(is_escape, "in string escape code")? == b'u' {
                        for _ in 0..4 {
                            self.expect(|digit| digit.is_ascii_hexdigit(), r"in \u hexadecimal character escape")?;
                        }
                    }
                }
                0..b' ' => return Err(Fault::Letter(letter, "in string literal".to_owned())),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let is_digit = |letter: u8| letter.is_ascii_digit();
        let first = if first == b'-' { self.expect(is_digit, "in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.expect(is_digit, "after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.expect(is_digit, "in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        for wanted in word.bytes().skip(1) {
            let place = || format!("in literal {word} (expecting '{}')", char::from(wanted));
            self.expect(|letter| letter == wanted, place())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What Go's reader said of texts, written by `tests/data/json-patch`.
    const TEXTS: &str = include_str!("../tests/data/json-patch/texts.jsonl");

    #[test]
    fn broken_texts_are_refused_in_the_words_of_go() {
        let mut refused = 0;
        for line in TEXTS.lines() {
            let case: Value = serde_json::from_str(line).expect("a case");
            let bytes: Vec<u8> = serde_json::from_value(case["text"].clone()).expect("bytes");
            assert_eq!(error(&bytes).as_deref(), case["error"].as_str(), "{:?}", String::from_utf8_lossy(&bytes));
            refused += usize::from(case["error"].is_string());
        }
        assert!(refused > 100, "{refused}");
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_right_and_no_text_panics(text in "[\\[\\]{}:,\"\\\\ a0-9.eE+trufalsn-]{0,24}") {
            let said = error(text.as_bytes());
            if serde_json::from_str::<Value>(&text).is_ok() {
                prop_assert_eq!(said, None);
            }
        }
    }
}
