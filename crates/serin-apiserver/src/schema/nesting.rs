//! How deep an expression of CEL goes, told from its text: what reads and asks it recurses as deep, and so must not before
//! that is known.
//!
//! Source: the grammar `CEL.g4`, and the limits of `parser/parser.go`, of cel-go.

/// Operators, calls and brackets in each other at most.
const LEVELS_MAX: usize = 250;
/// Letters at most.
const LETTERS_MAX: usize = 100_000;

/// Why an expression is not read, in cel-go's words; none if it can be.
pub(super) fn refuse(source: &str) -> Option<String> {
    let letters = source.chars().count();
    let why = if letters > LETTERS_MAX {
        format!("expression code point size exceeds limit: size: {letters}, limit {LETTERS_MAX}")
    } else if levels(source.as_bytes()) > LEVELS_MAX {
        format!("expression recursion limit exceeded: {LEVELS_MAX}")
    } else {
        return None;
    };
    Some(format!("ERROR: <input>:-1:0: {why}"))
}

/// The levels of the expressions that were read so far within one pair of brackets. Chains of operators lean to the left, so
/// that each one puts what is before it a level down; those of `&&` and `||` are balanced.
#[derive(Default)]
struct Levels {
    /// Of what is done: before the last `&&`, `||`, `?`, `:` or `,`.
    done: usize,
    /// Of the last comparison and what is before it; 0 if there is none.
    compared: usize,
    /// Of the last sum or product after that and what is before it; 0 if there is none.
    added: usize,
    /// Of the last operand.
    operand: usize,
    /// Whether that has come yet.
    has_operand: bool,
}

impl Levels {
    fn all(&self) -> usize {
        self.done.max(self.comparison())
    }

    fn comparison(&self) -> usize {
        if self.compared == 0 { self.sum() } else { self.compared.max(self.sum() + 1) }
    }

    fn sum(&self) -> usize {
        if self.added == 0 { self.operand } else { self.added.max(self.operand + 1) }
    }

    fn add(&mut self) {
        *self = Self { added: self.sum() + 1, operand: 0, has_operand: false, ..*self };
    }

    fn compare(&mut self) {
        *self = Self { done: self.done, compared: self.comparison() + 1, ..Self::default() };
    }

    /// What stands between operators is left out by a reader that goes on after an error.
    fn separate(&mut self) {
        if self.has_operand {
            *self = Self { done: self.all(), ..Self::default() };
        }
    }

    /// Takes in what was between brackets.
    fn close(&mut self, inner: &Self) {
        self.operand = self.operand.max(inner.all()) + 1;
        self.has_operand = true;
    }
}

/// The most levels that a reader of the text may go down, give or take a few. Of a text that is no expression too many.
fn levels(source: &[u8]) -> usize {
    let mut open: Vec<(Levels, u8)> = Vec::new();
    let mut here = Levels::default();
    let mut rest = source;
    let mut word: &[u8] = &[];
    while let Some(&letter) = rest.first() {
        let before = std::mem::take(&mut word);
        let mut len = 1;
        match letter {
            b'/' if rest.starts_with(b"//") => len = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            b'\'' | b'"' => {
                let is_raw = before.last().is_some_and(|last| matches!(last, b'r' | b'R')) && before.len() <= 2;
                // A reader goes on behind a quote that begins no text.
                if let Some(whole) = text(rest, is_raw) {
                    len = whole;
                    here.operand = here.operand.max(1);
                    here.has_operand = true;
                }
            }
            b'(' | b'[' | b'{' => {
                let closer = match letter {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                };
                open.push((std::mem::take(&mut here), closer));
            }
            b')' | b']' | b'}' => {
                if let Some((mut around, _)) = open.pop_if(|(_, closer)| *closer == letter) {
                    around.close(&here);
                    here = around;
                }
            }
            b'.' => here.operand += 1,
            b'+' | b'-' | b'*' | b'/' | b'%' => here.add(),
            b'<' | b'>' | b'=' | b'!' if rest.get(1) == Some(&b'=') => {
                here.compare();
                len = 2;
            }
            b'<' | b'>' => here.compare(),
            b'&' | b'|' if rest.get(1) == Some(&letter) => {
                here.separate();
                len = 2;
            }
            b',' | b'?' | b':' => here.separate(),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                let is_more = |byte: &u8| *byte == b'_' || byte.is_ascii_alphanumeric();
                len = rest.iter().position(|byte| !is_more(byte)).unwrap_or(rest.len());
                word = &rest[..len];
                if word == b"in" {
                    here.compare();
                } else {
                    here.operand = here.operand.max(1);
                    here.has_operand = true;
                }
            }
            _ => {}
        }
        rest = &rest[len..];
    }
    while let Some((mut around, _)) = open.pop() {
        around.close(&here);
        here = around;
    }
    here.all()
}

/// The length of the text in quotes that begins here, if one does.
fn text(rest: &[u8], is_raw: bool) -> Option<usize> {
    let quote = *rest.first()?;
    let is_long = rest.starts_with(&[quote; 3]);
    let mut at = if is_long { 3 } else { 1 };
    loop {
        let letter = *rest.get(at)?;
        if is_long && rest[at..].starts_with(&[quote; 3]) {
            return Some(at + 3);
        }
        match letter {
            letter if letter == quote && !is_long => return Some(at + 1),
            b'\n' | b'\r' if !is_long => return None,
            b'\\' if !is_raw => at += escape(&rest[at..])?,
            _ => at += 1,
        }
    }
}

/// The length of the escape that begins here, if it is one.
fn escape(rest: &[u8]) -> Option<usize> {
    let (digits, is_digit): (usize, fn(&u8) -> bool) = match rest.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => return Some(2),
        b'x' | b'X' => (2, u8::is_ascii_hexdigit),
        b'u' => (4, u8::is_ascii_hexdigit),
        b'U' => (8, u8::is_ascii_hexdigit),
        b'0'..=b'3' => (2, |digit| matches!(digit, b'0'..=b'7')),
        _ => return None,
    };
    rest.get(2..2 + digits)?.iter().all(is_digit).then_some(2 + digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_brackets_are_counted_and_what_is_beside_each_other_is_not() {
        let many = |part: &str| part.repeat(1_000);
        let rows = [
            (format!("{}1 == 1", many("1+")), 1_001),
            (format!("{}1 == 1", many("1 - ")), 1_001),
            (format!("{}1", many("1<")), 1_001),
            (format!("{}1", many("x in ")), 1_001),
            (format!("self{} == 1", many(".a")), 1_002),
            (format!("self{} == 1", many("[0]")), 1_002),
            (format!("self{} == ''", many(".trim()")), 2_002),
            (format!("{}true{}", many("("), many(")")), 1_001),
            (format!("{}[]{}", many("["), many("]")), 1_001),
            // What a bracket holds is below the chain that follows it.
            (format!("({}1){} == 1", many("1+"), many("+1")), 2_003),
            (format!("'&&' {}", many("+ '&&'")), 1_001),
            (format!("'a\\'&&' {}", many("+ ',\"'")), 1_001),
            (format!("r'\\' {}", many("+ r'\\'")), 1_001),
            (format!("1 {}", many("+ 1 // &&\n")), 1_001),
            // A reader goes on after these faults, as if they were not there.
            (many("1+,"), 1_000),
            (many("1+&&"), 1_000),
            (many("'\n+"), 1_000),
            (many("(1+]"), 2_000),
            (format!("{}true", many("self.a == 1 && ")), 3),
            (format!("{}1", many("self.a, ")), 2),
            (format!("{} == ''", many("a.b + ")), 1_003),
            ("self.list.all(x, x.startsWith('(((((') || x == r'[.+*]')".to_owned(), 4),
        ];
        for (source, want) in rows {
            let got = levels(source.as_bytes());
            assert!(got.abs_diff(want) <= 2, "{}: {got}, want {want}", &source[..source.len().min(40)]);
        }
    }

    #[test]
    fn a_deep_or_long_expression_is_refused_in_the_words_of_cel_go() {
        let deep = refuse(&"1+".repeat(251)).unwrap_or_default();
        assert_eq!(deep, "ERROR: <input>:-1:0: expression recursion limit exceeded: 250");
        let long = refuse(&"a || ".repeat(20_001)).unwrap_or_default();
        let wanted = "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100005, limit 100000";
        assert_eq!(long, wanted);
        assert_eq!(refuse(&"self.a == 'x' || ".repeat(1_000)), None);
    }
}
