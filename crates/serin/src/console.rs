//! What goes to the terminal beside the data: errors, hints, warnings, notes. All of it on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

/// Colours that mean something.
#[derive(Clone, Copy)]
pub enum Tone {
    Bad,
    Doubtful,
    Good,
    Strong,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Bad => "31",
            Tone::Doubtful => "33",
            Tone::Good => "32",
            Tone::Strong => "1",
        }
    }
}

/// Prints `error: ...`, and `hint: ...` where there is one.
pub fn error(message: &str, hint: Option<&str>) {
    line("error:", Tone::Bad, message);
    if let Some(hint) = hint {
        line("hint:", Tone::Good, hint);
    }
}

/// Prints `warning: ...`.
pub fn warning(message: &str) {
    line("warning:", Tone::Doubtful, message);
}

/// Prints a line that is no data: what was done where, or what is waited for.
pub fn note(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", clean(message));
}

fn line(label: &str, tone: Tone, message: &str) {
    let label = paint(label, tone, stderr_has_colour());
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(std::io::stderr().lock(), "{label} {}", clean(message));
}

/// `text` in a colour, or as it is.
pub fn paint(text: &str, tone: Tone, colour: bool) -> String {
    if colour { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

/// Whether standard error is a terminal that wants colours.
pub fn stderr_has_colour() -> bool {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    *COLOUR.get_or_init(|| std::io::stderr().is_terminal() && colours_wanted())
}

/// Whether standard output is a terminal that wants colours.
pub fn stdout_has_colour() -> bool {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    *COLOUR.get_or_init(|| std::io::stdout().is_terminal() && colours_wanted())
}

// https://no-color.org: any value but the empty one.
fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` without control characters (other than line ends and tabs): what comes from an object or an answer must not steer
/// the terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\td"), "a\u{fffd}[31mb\nc\td");
    }

    #[test]
    fn paint_without_colour_is_the_text() {
        assert_eq!(paint("x", Tone::Bad, false), "x");
        assert_eq!(paint("x", Tone::Bad, true), "\u{1b}[31mx\u{1b}[0m");
    }
}
