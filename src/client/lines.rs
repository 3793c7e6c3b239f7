//! Splits bytes that arrive in arbitrary pieces into lines.

/// Bytes that are not all split into lines yet.
#[derive(Default, Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Start of the next line.
    start: usize,
    /// Its end is not before this.
    searched: usize,
}

impl Lines {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next line without its end; with `at_end`, also an unfinished last line.
    pub fn next(&mut self, at_end: bool) -> Option<&[u8]> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        let (end, next) = match found {
            Some(end) => (end, end + 1),
            None if at_end && self.pending_bytes() > 0 => (self.bytes.len(), self.bytes.len()),
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        let line = &self.bytes[self.start..end];
        (self.start, self.searched) = (next, next);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Returns how many bytes were not returned as lines.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_lines() {
        let text = b"one\n\ntwo\r\n\xffthree\nlast";
        let expected: [&[u8]; 5] = [b"one", b"", b"two", b"\xffthree", b"last"];
        for size in 1..=text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next(false) {
                    got.push(line.to_vec());
                }
            }
            assert_eq!(lines.pending_bytes(), 4);
            got.extend(lines.next(true).map(<[u8]>::to_vec));
            assert_eq!(got, expected, "in pieces of {size}");
            assert_eq!(lines.next(true), None);
            assert_eq!(lines.pending_bytes(), 0);
        }
    }
}
