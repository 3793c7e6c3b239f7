//! Checks UTF-8 over a stream of pieces, and fails at the first byte that no continuation can make valid (RFC 6455,
//! section 8.1).

/// An incomplete character at the end of a piece: at most three bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Utf8Stream {
    carry: [u8; 3],
    carried: u8,
}

/// The bytes are not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotUtf8;

impl Utf8Stream {
    /// Checks the next piece.
    ///
    /// # Errors
    /// When the bytes so far cannot be the start of valid UTF-8.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = piece;
        while self.carried > 0 {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            rest = after;
            let held = self.carried as usize;
            let mut character = [0; 4];
            character[..held].copy_from_slice(&self.carry[..held]);
            character[held] = byte;
            match std::str::from_utf8(&character[..=held]) {
                Ok(_) => self.carried = 0,
                Err(error) if error.error_len().is_some() || held == 3 => return Err(NotUtf8),
                Err(_) => {
                    self.carry[held] = byte;
                    self.carried += 1;
                }
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let tail = &rest[error.valid_up_to()..];
        self.carry[..tail.len()].copy_from_slice(tail);
        self.carried = tail.len() as u8;
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When it ends within a character.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.carried) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether some continuation could make `bytes` valid.
    fn is_beginning(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
    }

    proptest! {
        #[test]
        fn any_split_fails_as_early_as_can_be(
            text in "\\PC{0,40}", noise in prop::collection::vec(any::<u8>(), 0..3), at in any::<prop::sample::Index>(),
            cuts in prop::collection::vec(1usize..7, 1..60)
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            let (mut stream, mut seen, mut failed) = (Utf8Stream::default(), 0, false);
            for cut in cuts {
                let piece = &bytes[seen..(seen + cut).min(bytes.len())];
                seen += piece.len();
                failed = stream.push(piece).is_err();
                prop_assert_eq!(failed, !is_beginning(&bytes[..seen]));
                if failed {
                    break;
                }
            }
            if !failed {
                prop_assert_eq!(stream.finish().is_ok(), std::str::from_utf8(&bytes[..seen]).is_ok());
            }
        }
    }
}
