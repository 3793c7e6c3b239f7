//! A line editor for one row of a terminal: keys in, lines and the text of the row out. It does no I/O itself.
//!
//! Keys are those of Emacs and of every shell: arrows, Home and End, Backspace and Delete; Ctrl-A, E, B, F, P, N, D, H,
//! K, U, W, and Ctrl-R to search the history. Pasted text (bracketed paste) may have several lines; Enter sends it.

use unicode_width::UnicodeWidthChar;

/// Precedes the line.
const PROMPT: &str = "> ";
/// Most characters shown of the search text.
const LONGEST_WANTED: usize = 20;
/// No known key has a longer sequence.
const LONGEST_SEQUENCE: usize = 16;

/// A result of typing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-D on an empty line.
    End,
}

/// A key, possibly with bytes still to come.
#[derive(Default)]
enum Key {
    #[default]
    None,
    /// A character in UTF-8.
    Character(Vec<u8>),
    /// Escape.
    Escape,
    /// Escape, a bracket or an O, and what follows.
    Sequence(Vec<u8>),
}

/// The byte of a key with Ctrl.
const fn ctrl(key: u8) -> u8 {
    key & 0x1f
}

/// See the module.
#[derive(Default)]
pub struct Editor {
    line: Vec<char>,
    /// Index at which the next character is inserted.
    cursor: usize,
    key: Key,
    /// Whether the last byte was a carriage return: a line feed after it belongs to the same end of line.
    returned: bool,
    /// Earlier lines, the latest one last.
    history: Vec<String>,
    /// Index of the line shown; the length of the history for the new line.
    shown: usize,
    /// The new line, while another is shown.
    new: Vec<char>,
    /// Whether a paste is in progress.
    pastes: bool,
    /// The text to search for in the history.
    search: Option<String>,
}

impl Editor {
    /// Makes an editor with a history.
    pub fn new(history: Vec<String>) -> Editor {
        Editor { shown: history.len(), history, ..Editor::default() }
    }

    /// Takes bytes from the keyboard.
    pub fn feed(&mut self, bytes: &[u8], mut typed: impl FnMut(Typed)) {
        for &byte in bytes {
            if std::mem::replace(&mut self.returned, byte == b'\r') && byte == b'\n' {
                continue;
            }
            match (std::mem::take(&mut self.key), byte) {
                (Key::Character(mut bytes), 0x80..0xc0) => {
                    bytes.push(byte);
                    self.character(bytes);
                }
                (Key::Escape, b'[' | b'O') => self.key = Key::Sequence(Vec::new()),
                // With Alt: no known key.
                (Key::Escape, 0x20..) => {}
                // The console's function keys have a second bracket and then a letter.
                (Key::Sequence(mut parameters), 0x20..0x40 | b'[') if byte != b'[' || parameters.is_empty() => {
                    if parameters.len() < LONGEST_SEQUENCE {
                        parameters.push(byte);
                    }
                    self.key = Key::Sequence(parameters);
                }
                (Key::Sequence(parameters), 0x40..0x7f) => self.sequence(&parameters, byte),
                // The sequence was not a key, and this byte does not belong to it.
                _ => self.begin(byte, &mut typed),
            }
        }
    }

    /// Takes a key during a search; a key that is not for searching ends it and edits the line found.
    fn search_key(&mut self, byte: u8) -> bool {
        let Some(wanted) = &mut self.search else { return false };
        let all = self.history.len();
        match byte {
            b if b == ctrl(b'R') => self.search_before(self.shown),
            0x7f | 0x08 => {
                wanted.pop();
                self.search_before(all);
            }
            b if b == ctrl(b'G') => {
                self.search = None;
                self.show(all);
            }
            0x20.. => return false,
            _ => {
                self.search = None;
                return false;
            }
        }
        true
    }

    /// Shows the latest line before index `end` that contains the search text.
    fn search_before(&mut self, end: usize) {
        let Some(wanted) = self.search.as_ref().filter(|wanted| !wanted.is_empty()) else { return };
        let lines = &self.history[..end.min(self.history.len())];
        if let Some(found) = lines.iter().rposition(|line| line.contains(wanted.as_str())) {
            self.show(found);
        }
    }

    fn begin(&mut self, byte: u8, typed: &mut impl FnMut(Typed)) {
        if self.pastes {
            return match byte {
                b'\r' | b'\n' => self.put('\n'),
                0x1b => self.key = Key::Escape,
                0..0x20 if byte != b'\t' => {}
                _ => self.character(vec![byte]),
            };
        }
        if self.search_key(byte) {
            return;
        }
        match byte {
            b'\r' | b'\n' => typed(Typed::Line(self.enter())),
            0x1b => self.key = Key::Escape,
            0x7f | 0x08 if self.cursor == 0 => {}
            0x7f | 0x08 => self.delete(self.cursor - 1),
            b if b == ctrl(b'D') && self.line.is_empty() => typed(Typed::End),
            b if b == ctrl(b'D') => self.delete(self.cursor),
            b if b == ctrl(b'A') => self.cursor = 0,
            b if b == ctrl(b'E') => self.cursor = self.line.len(),
            b if b == ctrl(b'B') => self.cursor = self.cursor.saturating_sub(1),
            b if b == ctrl(b'F') => self.cursor = (self.cursor + 1).min(self.line.len()),
            b if b == ctrl(b'P') => self.show(self.shown.saturating_sub(1)),
            b if b == ctrl(b'N') => self.show(self.shown + 1),
            b if b == ctrl(b'K') => self.line.truncate(self.cursor),
            b if b == ctrl(b'U') => self.cut_from(0),
            b if b == ctrl(b'W') => self.cut_from(self.word_start()),
            b if b == ctrl(b'R') => self.search = Some(String::new()),
            b'\t' => self.insert('\t'),
            0..0x20 => {}
            _ => self.character(vec![byte]),
        }
    }

    /// Takes a character that has at least one byte; invalid UTF-8 is ignored.
    fn character(&mut self, bytes: Vec<u8>) {
        match std::str::from_utf8(&bytes) {
            Ok(text) => text.chars().for_each(|c| self.insert(c)),
            Err(error) if error.error_len().is_none() => self.key = Key::Character(bytes),
            Err(_) => {}
        }
    }

    fn sequence(&mut self, parameters: &[u8], last: u8) {
        self.search = None;
        match (last, parameters) {
            (b'~', b"200") => self.pastes = true,
            (b'~', b"201") => self.end_paste(),
            _ if self.pastes => {}
            (_, [b'[', ..]) => {}
            (b'A', _) => self.show(self.shown.saturating_sub(1)),
            (b'B', _) => self.show(self.shown + 1),
            (b'C', _) => self.cursor = (self.cursor + 1).min(self.line.len()),
            (b'D', _) => self.cursor = self.cursor.saturating_sub(1),
            (b'H', _) | (b'~', b"1" | b"7") => self.cursor = 0,
            (b'F', _) | (b'~', b"4" | b"8") => self.cursor = self.line.len(),
            (b'~', b"3") => self.delete(self.cursor),
            _ => {}
        }
    }

    fn insert(&mut self, c: char) {
        // The upper half of Latin-1.
        if c.is_control() && c != '\t' {
            return;
        }
        match &mut self.search {
            None => self.put(c),
            Some(wanted) => {
                wanted.push(c);
                self.search_before(self.shown + 1);
            }
        }
    }

    fn put(&mut self, c: char) {
        self.line.insert(self.cursor, c);
        self.cursor += 1;
    }

    /// Drops the end of the last pasted line, which does not belong to the message.
    fn end_paste(&mut self) {
        if std::mem::take(&mut self.pastes) && self.cursor > 0 && self.line[self.cursor - 1] == '\n' {
            self.delete(self.cursor - 1);
        }
    }

    fn delete(&mut self, at: usize) {
        if at < self.line.len() {
            self.line.remove(at);
            self.cursor = self.cursor.min(at);
        }
    }

    /// Cuts from `start` to the cursor.
    fn cut_from(&mut self, start: usize) {
        self.line.drain(start..self.cursor);
        self.cursor = start;
    }

    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1);
        before[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |space| space + 1)
    }

    fn enter(&mut self) -> String {
        let line: String = std::mem::take(&mut self.line).into_iter().collect();
        if is_worth_keeping(&line, self.history.last()) {
            self.history.push(line.clone());
        }
        (self.cursor, self.shown) = (0, self.history.len());
        self.new.clear();
        self.search = None;
        line
    }

    /// Shows an earlier line, or the new one.
    fn show(&mut self, which: usize) {
        let which = which.min(self.history.len());
        if which == self.shown {
            return;
        }
        if self.shown == self.history.len() {
            self.new.clone_from(&self.line);
        }
        self.line =
            self.history.get(which).map_or_else(|| std::mem::take(&mut self.new), |line| line.chars().collect());
        (self.shown, self.cursor) = (which, self.line.len());
    }

    /// Returns whether the line is empty.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Returns the prompt; during a search, the end of the search text.
    fn prompt(&self) -> String {
        let Some(wanted) = &self.search else { return PROMPT.to_owned() };
        let skipped = wanted.chars().count().saturating_sub(LONGEST_WANTED);
        format!("(search '{}') ", wanted.chars().skip(skipped).map(shown_as).collect::<String>())
    }

    /// Returns the text of a terminal's row with this many columns, which also places the cursor. A long line is shown
    /// around the cursor.
    pub fn row(&self, columns: usize) -> String {
        // The last column stays free, as terminals differ beyond it.
        let width = |c: &char| c.width().unwrap_or(1);
        let prompt = self.prompt();
        let prompt_columns: usize = prompt.chars().map(|c| width(&c)).sum();
        let space = columns.saturating_sub(prompt_columns + 1).max(1);
        // Looks only at what fits: the line may be long.
        let (mut start, mut before) = (self.cursor, 0);
        while start > 0 && before + width(&self.line[start - 1]) <= space {
            start -= 1;
            before += width(&self.line[start]);
        }
        // An accent without its letter would land on the prompt.
        start += self.line[start..].iter().take_while(|c| width(c) == 0).count();
        let (mut end, mut all) = (self.cursor.max(start), before);
        while end < self.line.len() && all + width(&self.line[end]) <= space {
            all += width(&self.line[end]);
            end += 1;
        }
        let text: String = self.line[start..end].iter().map(|c| shown_as(*c)).collect();
        let column = prompt_columns + before;
        format!("\r\x1b[K{prompt}{text}\r\x1b[{column}C")
    }
}

/// Returns how a single row shows a character.
fn shown_as(c: char) -> char {
    match c {
        '\t' => ' ',
        '\n' => '\u{21b5}',
        c => c,
    }
}

/// Returns whether to add a line to the history after `last`.
pub fn is_worth_keeping(line: &str, last: Option<&String>) -> bool {
    !line.trim().is_empty() && last.is_none_or(|last| last != line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: &str = "\x1b[A";
    const DOWN: &str = "\x1bOB";
    const LEFT: &str = "\x1b[D";

    /// The lines that keys yield, in whatever pieces they arrive.
    fn lines(keys: &[&str]) -> Vec<String> {
        let bytes = keys.concat().into_bytes();
        let type_in = |size: usize| {
            let (mut editor, mut lines) = (Editor::new(vec!["old".to_owned(), "older".to_owned()]), Vec::new());
            for piece in bytes.chunks(size) {
                editor.feed(piece, |typed| match typed {
                    Typed::Line(line) => lines.push(line),
                    Typed::End => lines.push("END".to_owned()),
                });
            }
            lines
        };
        let all = type_in(bytes.len());
        assert_eq!(type_in(1), all, "{keys:?}");
        all
    }

    #[test]
    fn keys_edit() {
        for (keys, line) in [
            (&["plain"][..], "plain"),
            (&["h\u{e9} \u{1f980}", "\x7f", "x"], "h\u{e9} x"),
            (&["ac", LEFT, "b", "\x05", "d"], "abcd"),
            (&["\x7f", LEFT, "a\x06\x06b"], "ab"),
            (&["bc\x01a\x0b", "x"], "ax"),
            (&["one two  ", "\x17", "x"], "one x"),
            (&["one two", LEFT, "\x15"], "o"),
            (&["abc\x01\x04\x1b[3~"], "c"),
            (&["abc\x1b[H>\x1b[F<\x1b[1~\x1b[4~"], ">abc<"),
            (&["a\x1b[1;5Cb\x1bxc\x00\x1b[202~d\u{9b}"], "abcd"),
            (&["a\tb"], "a\tb"),
            (&["\x1b[200~one\r\ntwo\tx\x03\n\nthree\n\x1b[201~", "!"], "one\ntwo\tx\n\nthree!"),
            (&["\x1b[200~a\x1b[Db\x1b[201~", LEFT, "c"], "acb"),
            (&["\x12ol"], "older"),
            (&["\x12old\x12"], "old"),
            (&["\x12old\x12\x12", LEFT, "x"], "olxd"),
            (&["\x12olde\x7f\x12\x05!"], "old!"),
            (&["new\x12old\x07er"], "newer"),
            (&["\x12nothing", LEFT, "x"], "x"),
            (&[UP], "older"),
            (&[UP, UP, UP, "!"], "old!"),
            (&["new", UP, UP, DOWN, DOWN, DOWN, "er"], "newer"),
        ] {
            assert_eq!(lines(&[&keys.concat(), "\r"]), [line], "{keys:?}");
        }
        for (keys, all) in [
            (&["\x1b", UP][..], &["older"][..]),
            (&["a\x1b[[A\x1b[[Eb"], &["ab"]),
            (&["a\x1b\rb"], &["a", "b"]),
            (&["a\x1b[1\rb\x1b[\x1b[Dc"], &["a", "cb"]),
            (&["a\x1b[1;2;3;4;5;6;7;8;9;10;11;12;13mb"], &["ab"]),
            (&["a\r\nb\r\n\r\nc\n\nd"], &["a", "b", "", "c", "", "d"]),
        ] {
            assert_eq!(lines(&[&keys.concat(), "\r"]), all, "{keys:?}");
        }
        assert_eq!(lines(&["a\r\rb\n", UP, UP, "\r", "\x04", "x\x04\r"]), ["a", "", "b", "a", "END", "x"]);
    }

    #[test]
    fn a_search_and_what_is_pasted_on_a_row() {
        let mut editor = Editor::new(vec!["one".to_owned(), "two".to_owned()]);
        editor.feed(b"\x12on", |_| {});
        assert_eq!(editor.row(80), "\r\x1b[K(search 'on') one\r\x1b[17C");
        editor.feed(b"\x07\x1b[200~a\nb\x1b[201~", |_| {});
        assert_eq!(editor.row(80), "\r\x1b[K> a\u{21b5}b\r\x1b[5C");
    }

    #[test]
    fn bytes_that_are_no_character_cost_nothing_else() {
        let (mut editor, mut lines) = (Editor::default(), Vec::new());
        editor.feed(b"a\xc3\rb\xf0\x9f\xa6\xc3\xa9\x80\r", |line| lines.push(line));
        assert_eq!(lines, [Typed::Line("a".to_owned()), Typed::Line("b\u{e9}".to_owned())]);
    }

    #[test]
    fn a_row_costs_what_it_shows() {
        let mut editor = Editor::default();
        editor.feed("x".repeat(1_000_000).as_bytes(), |_| {});
        // Summing the width of all characters before the cursor for each column would take days.
        for _ in 0..1000 {
            assert_eq!(editor.row(80), format!("\r\x1b[K> {}\r\x1b[79C", "x".repeat(77)));
        }
    }

    #[test]
    fn an_accent_goes_with_its_letter() {
        let mut editor = Editor::default();
        editor.feed("abcde\u{301}fghij".as_bytes(), |_| {});
        assert_eq!(editor.row(9), "\r\x1b[K> e\u{301}fghij\r\x1b[8C");
        assert_eq!(editor.row(8), "\r\x1b[K> fghij\r\x1b[7C");
        editor.feed("\x15\u{301}".as_bytes(), |_| {});
        assert_eq!(editor.row(8), "\r\x1b[K> \r\x1b[2C");
        editor.feed(b"x\x01", |_| {});
        assert_eq!(editor.row(8), "\r\x1b[K> x\r\x1b[2C");
    }

    #[test]
    fn the_row_shows_what_fits_around_the_cursor() {
        let mut editor = Editor::default();
        assert_eq!(editor.row(80), "\r\x1b[K> \r\x1b[2C");
        editor.feed("h\u{e9}\u{1f980}".as_bytes(), |_| {});
        assert_eq!(editor.row(80), "\r\x1b[K> h\u{e9}\u{1f980}\r\x1b[6C", "a crab is two columns wide");
        editor.feed(b"\x15abcdefghij", |_| {});
        assert_eq!(editor.row(8), "\r\x1b[K> fghij\r\x1b[7C");
        editor.feed(b"\x01", |_| {});
        assert_eq!(editor.row(8), "\r\x1b[K> abcde\r\x1b[2C");
        // No terminal is too narrow.
        assert_eq!(editor.row(0), "\r\x1b[K> a\r\x1b[2C");
    }
}
