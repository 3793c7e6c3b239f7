//! A ring of records: one process writes, any number read, and no process waits for another.
//!
//! A ring is a sequence of words, with four more words that only its writer changes:
//!
//! * `head`: the end of the published records. Counts words since the ring was made; the word at position `p` is at `p`
//!   modulo the ring's length.
//! * `reserved`: how far the writer may have begun to write. Everything a whole ring before it is being overwritten.
//! * `checkpoint`: the start of some record, at most half a ring before `head`, where a lapped reader continues. A
//!   later one is shown before it is overwritten, so a killed writer's successor finds whole records from it on.
//! * `place`: the number of the record at `head` in the upper half, and the lower half of `head`, for new readers.
//!
//! A record is a header word, with the record's number in the upper half and its length in bytes in the lower, and the
//! payload in words. Numbers count up by one, so a lapped reader knows how many records it lost.
//!
//! A reader copies words one by one with atomic loads, then checks whether `reserved` has come round to where it began;
//! if not, the copy is valid. Nothing from the checkpoint on is overwritten, whatever `reserved` says.
//!
//! Orderings. Writer: `reserved` (relaxed), release fence, words (relaxed), `head` (release), `place` (relaxed),
//! `checkpoint` (release). Reader: `head` (acquire), words (relaxed), acquire fence, `reserved` and `checkpoint`
//! (relaxed). If the reader copied a word that overwrote one of its own, the fences make it see the `reserved` before
//! that word, and the `checkpoint` before that.
//!
//! A reader trusts nothing. Numbers keep it from handing out a record twice or losing one uncounted: consecutive
//! records have consecutive numbers, and a jump cannot count more losses than words were skipped. If the content of the
//! ring is impossible, the reader waits for the next publication, since a live writer repairs all four words then. If
//! the ring still cannot be read, the reader continues where the ring ended before.

use super::atomic::{AtomicU64, Ordering, fence};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// Words reserved at a time, or a sixteenth of the ring, so that not every record writes `reserved`.
const RESERVE_WORDS: u64 = 4096;
/// No ring gets this far: it would take centuries. A larger value is corruption, not data.
const LAST_POSITION: u64 = 1 << 62;
/// After being lapped this many times, a reader lets others have their turn.
const ATTEMPTS: usize = 4;
/// Words copied at a time, or a sixteenth of the ring, or one longer record: few, as the whole copy is in vain if the
/// writer comes round meanwhile.
const BATCH_WORDS: u64 = 4096;
/// Records up to this length, a multiple of the word size, are assembled on the stack.
const SHORT_BYTES: usize = 256;

/// A ring in memory.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    /// The end of the published records, in words.
    pub head: &'a AtomicU64,
    /// How far the writer may have begun to write.
    pub reserved: &'a AtomicU64,
    /// Where a lapped reader continues.
    pub checkpoint: &'a AtomicU64,
    /// The number of the next record, with the lower half of the head.
    pub place: &'a AtomicU64,
    /// The records; their length is a power of two.
    pub words: &'a [AtomicU64],
}

/// A record that is longer than a quarter of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong {
    /// The longest possible record, in bytes.
    pub limit: usize,
}

/// The content of a ring cannot have been written by a [`Writer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt(pub &'static str);

/// The outcome of a [`Reader::read`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Records handed out.
    pub records: u64,
    /// Records that were overwritten before they could be read.
    pub lost: u64,
    /// Whether there are more.
    pub more: bool,
}

impl Ring<'_> {
    fn len(&self) -> u64 {
        self.words.len() as u64
    }

    /// The longest record, in bytes.
    pub fn max_record_bytes(&self) -> usize {
        (self.words.len() / 4 - 1) * WORD
    }

    #[inline]
    fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[(position & (self.len() - 1)) as usize]
    }

    /// The words from `position` on, in up to two pieces.
    #[inline]
    fn pieces(&self, position: u64, count: u64) -> [&[AtomicU64]; 2] {
        let start = (position & (self.len() - 1)) as usize;
        let count = count as usize;
        let first = count.min(self.words.len() - start);
        [&self.words[start..start + first], &self.words[..count - first]]
    }
}

fn place(number: u32, head: u64) -> u64 {
    u64::from(number) << 32 | u64::from(head as u32)
}

fn header(number: u32, bytes: usize) -> u64 {
    u64::from(number) << 32 | bytes as u64
}

/// The words of a record including its header.
fn record_words(bytes: usize) -> u64 {
    1 + bytes.div_ceil(WORD) as u64
}

/// Stores as many words as fit.
#[inline]
fn store(bytes: &[u8], words: &[AtomicU64]) {
    let (chunks, _) = bytes.as_chunks();
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
}

/// The end of a ring, and the number of the record there. Both `head` and `place` hold it; if they disagree, the later
/// one that whole records lead to from the checkpoint is valid.
fn end_of(ring: Ring<'_>, checkpoint: u64, head: u64) -> Result<(u64, u32), Corrupt> {
    let place = ring.place.load(Ordering::Acquire);
    let end = checkpoint.saturating_add((place as u32).wrapping_sub(checkpoint as u32).into());
    let by_head = next_number(ring, checkpoint, head).map(|number| (head, number));
    let by_place = next_number(ring, checkpoint, end).map(|number| (end, number));
    match by_place {
        Ok((end, number)) if number == (place >> 32) as u32 => {
            Ok(by_head.map_or((end, number), |other| other.max((end, number))))
        }
        _ => by_head,
    }
}

/// The number of the record at `head`, derived from the records since the checkpoint.
fn next_number(ring: Ring<'_>, checkpoint: u64, head: u64) -> Result<u32, Corrupt> {
    if head == 0 && checkpoint == 0 {
        return Ok(0);
    }
    if checkpoint >= head || head - checkpoint > ring.len() {
        return Err(Corrupt("a checkpoint beyond the ring"));
    }
    let (mut position, mut next) = (checkpoint, None);
    while position < head {
        let header = ring.word(position).load(Ordering::Relaxed);
        let (number, bytes) = ((header >> 32) as u32, header as u32 as usize);
        if bytes == 0 || bytes > ring.max_record_bytes() {
            return Err(Corrupt("a record of a length that cannot be"));
        }
        if next.is_some_and(|next| next != number) {
            return Err(Corrupt("a record with another number than the next"));
        }
        position += record_words(bytes);
        next = Some(number.wrapping_add(1));
    }
    next.filter(|_| position == head).ok_or(Corrupt("a last record beyond the head"))
}

/// How many words more than needed are reserved at a time.
fn ahead(ring: Ring<'_>) -> u64 {
    RESERVE_WORDS.min(ring.len() / 16)
}

/// Writes a ring. The caller guarantees that each ring has at most one writer.
#[derive(Debug)]
pub struct Writer {
    /// Where the next record goes.
    position: u64,
    published: u64,
    reserved: u64,
    checkpoint: u64,
    /// The checkpoint visible to others.
    shown: u64,
    /// Number of the next record.
    number: u32,
    record: Vec<u8>,
}

impl Writer {
    /// Continues where the ring's last writer ended, perhaps within a record, which no reader will see.
    ///
    /// # Errors
    /// When the last writer's records are inconsistent.
    pub fn resume(ring: Ring<'_>) -> Result<Writer, Corrupt> {
        let head = ring.head.load(Ordering::Acquire);
        let checkpoint = ring.checkpoint.load(Ordering::Acquire);
        if checkpoint > LAST_POSITION {
            return Err(Corrupt("a checkpoint that no ring comes to"));
        }
        let (position, number) = end_of(ring, checkpoint, head)?;
        let (mut reserved, most) = (ring.reserved.load(Ordering::Relaxed), checkpoint + ring.len());
        if !(position..=most).contains(&reserved) {
            // Damaged: everything that may be overwritten may have been.
            reserved = most;
            ring.reserved.store(reserved, Ordering::Relaxed);
        }
        // The former writer may have been killed before it wrote these, or they are damaged.
        ring.head.store(position, Ordering::Release);
        ring.place.store(place(number, position), Ordering::Relaxed);
        Ok(Writer {
            position,
            published: position,
            reserved,
            checkpoint,
            shown: checkpoint,
            number,
            record: Vec::new(),
        })
    }

    /// Writes a record made of `parts`. Readers see it after [`Writer::publish`], or earlier if the ring is full.
    ///
    /// # Errors
    /// When the record is too long.
    pub fn push(&mut self, ring: Ring<'_>, parts: &[&[u8]]) -> Result<(), TooLong> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let limit = ring.max_record_bytes();
        if bytes > limit {
            return Err(TooLong { limit });
        }
        // New words must not reach the shown checkpoint, which is now at most half a ring back; a record is a quarter.
        if self.is_full(ring, bytes) {
            self.publish(ring);
        }
        let end = self.position + record_words(bytes);
        let words = end - self.position;
        if end > self.reserved {
            self.reserved = end + ahead(ring);
            ring.reserved.store(self.reserved, Ordering::Relaxed);
            fence(Ordering::Release);
        }
        ring.word(self.position).store(header(self.number, bytes), Ordering::Relaxed);
        let [first, second] = ring.pieces(self.position + 1, words - 1);
        if second.is_empty() && bytes <= SHORT_BYTES {
            // The usual case: joined in a buffer that needs no length checks.
            let mut record = [0; SHORT_BYTES];
            let mut end = 0;
            for part in parts {
                record[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            store(&record, first);
        } else {
            self.record.clear();
            parts.iter().for_each(|part| self.record.extend_from_slice(part));
            self.record.resize((words as usize - 1) * WORD, 0);
            let (start, rest) = self.record.split_at(first.len() * WORD);
            store(start, first);
            store(rest, second);
        }
        if self.position - self.checkpoint >= ring.len() / 4 {
            self.checkpoint = self.position;
        }
        self.position = end;
        self.number = self.number.wrapping_add(1);
        Ok(())
    }

    /// Whether a record of that length makes [`Writer::push`] show earlier records, for lack of room.
    #[inline]
    pub fn is_full(&self, ring: Ring<'_>, bytes: usize) -> bool {
        self.position + record_words(bytes) + ahead(ring) - self.shown > ring.len()
    }

    /// Position and number of the next record.
    pub fn place(&self) -> (u64, u32) {
        (self.position, self.number)
    }

    /// Shows the pushed records. Returns whether there were any.
    pub fn publish(&mut self, ring: Ring<'_>) -> bool {
        if self.published == self.position {
            return false;
        }
        (self.published, self.shown) = (self.position, self.checkpoint);
        // Only others can have changed it; it is seldom written, so that readers find it in their caches.
        if ring.reserved.load(Ordering::Relaxed) != self.reserved {
            ring.reserved.store(self.reserved, Ordering::Relaxed);
        }
        ring.head.store(self.position, Ordering::Release);
        ring.place.store(place(self.number, self.position), Ordering::Relaxed);
        // Whenever we are killed, the checkpoint found does not exceed the head.
        ring.checkpoint.store(self.checkpoint, Ordering::Release);
        true
    }
}

/// Reads a ring from its starting position.
#[derive(Debug)]
pub struct Reader {
    position: u64,
    /// Number of the next record; `None` while unknown.
    number: Option<u32>,
    /// Start of the record with that number, unless some were skipped.
    known: u64,
    /// The head at which the ring could not be read from here.
    stuck: Option<u64>,
    batch: Vec<u8>,
}

impl Reader {
    /// A reader starting at the record with that number.
    pub fn at(position: u64, number: u32) -> Reader {
        Reader::new(position, Some(number))
    }

    fn new(position: u64, number: Option<u32>) -> Reader {
        Reader { position, number, known: position, stuck: None, batch: Vec::new() }
    }

    /// A reader of what is published from about now on. If a word of the ring is damaged, the others suffice.
    pub fn at_head(ring: Ring<'_>) -> Reader {
        for _ in 0..ATTEMPTS {
            let checkpoint = ring.checkpoint.load(Ordering::Acquire);
            if let Ok((end, number)) = end_of(ring, checkpoint, ring.head.load(Ordering::Acquire))
                && is_kept(ring, checkpoint)
            {
                return Reader::at(end, number);
            }
        }
        // The checkpoint or a record after it is damaged.
        let (head, place) = (ring.head.load(Ordering::Acquire), ring.place.load(Ordering::Acquire));
        Reader::new(head, (place as u32 == head as u32).then_some((place >> 32) as u32))
    }

    /// Its position, in words.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the ring has unread records that may be readable.
    #[inline]
    pub fn is_behind(&self, ring: Ring<'_>) -> bool {
        let head = ring.head.load(Ordering::Acquire);
        head != self.position && self.stuck != Some(head)
    }

    /// Hands out at most one batch of records: the number of each, how many were lost before it, and its bytes.
    ///
    /// # Errors
    /// When no [`Writer`] wrote the content. Retried after the next publication: see [`Reader::is_behind`].
    pub fn read(&mut self, ring: Ring<'_>, mut each: impl FnMut(u32, u64, &[u8])) -> Result<Progress, Corrupt> {
        for _ in 0..ATTEMPTS {
            let head = ring.head.load(Ordering::Acquire);
            if head == self.position || self.stuck == Some(head) {
                return Ok(Progress::default());
            }
            // A head that went back is treated like one that is too far ahead.
            let behind = head.checked_sub(self.position).unwrap_or(u64::MAX);
            if behind <= ring.len()
                && let Some(words) = self.copy_batch(ring, behind)
            {
                return match self.hand_out(ring, words, &mut each) {
                    Ok(progress) => {
                        self.stuck = None;
                        Ok(Progress { more: self.position != head, ..progress })
                    }
                    Err(why) => Err(self.stick(ring, head, why)),
                };
            }
            // Lapped: continues at the checkpoint. The next record read shows how many were lost.
            let checkpoint = ring.checkpoint.load(Ordering::Acquire);
            let later = ring.head.load(Ordering::Acquire);
            if checkpoint <= self.position || checkpoint > later {
                return Err(self.stick(
                    ring,
                    head,
                    Corrupt("a checkpoint that is not between the reader and the head"),
                ));
            }
            if later - checkpoint <= ring.len() {
                self.position = checkpoint;
            } else if later == head {
                return Err(self.stick(ring, head, Corrupt("a head beyond the ring")));
            }
        }
        Ok(Progress { more: true, ..Progress::default() })
    }

    /// Notes that the ring cannot be read from here at this head. If an earlier head failed as well, the head is not at
    /// fault: the reader continues where the ring ended then.
    fn stick(&mut self, ring: Ring<'_>, head: u64, why: Corrupt) -> Corrupt {
        let position = self.position;
        let is_sound = |end: &u64| *end != position && head.checked_sub(*end).is_some_and(|left| left <= ring.len());
        if let Some(former) = self.stuck.replace(head) {
            let checkpoint = Some(ring.checkpoint.load(Ordering::Acquire)).filter(|checkpoint| *checkpoint > position);
            if let Some(end) = [Some(former), checkpoint].into_iter().flatten().find(is_sound) {
                (self.position, self.stuck) = (end, None);
            }
        }
        why
    }

    /// Hands out the whole records in the batch.
    fn hand_out(
        &mut self,
        ring: Ring<'_>,
        words: u64,
        each: &mut impl FnMut(u32, u64, &[u8]),
    ) -> Result<Progress, Corrupt> {
        let (mut progress, mut at) = (Progress::default(), 0);
        while at < words {
            let (number, bytes) = self.header(at);
            let end = at + record_words(bytes);
            let lost = match self.lost_before(number, at) {
                _ if bytes == 0 || bytes > ring.max_record_bytes() => {
                    Err(Corrupt("a record of a length that cannot be"))
                }
                // The rest of the record is in the next batch.
                _ if end > words && at > 0 => break,
                _ if end > words => Err(Corrupt("a record beyond the head")),
                lost => lost,
            };
            match lost {
                Ok(Some(lost)) => {
                    progress.lost += lost;
                    progress.records += 1;
                    (self.number, self.known) = (Some(number.wrapping_add(1)), self.position + end);
                    let start = (at as usize + 1) * WORD;
                    each(number, lost, &self.batch[start..start + bytes]);
                }
                Ok(None) => {}
                // Records before it are valid.
                Err(_) if at > 0 => break,
                Err(why) => return Err(why),
            }
            at = end;
        }
        self.position += at;
        Ok(progress)
    }

    /// How many records were lost before the one at that word of the batch; `None` if it was handed out before.
    #[inline]
    fn lost_before(&self, number: u32, at: u64) -> Result<Option<u64>, Corrupt> {
        let Some(expected) = self.number else { return Ok(Some(0)) };
        let passed_over = (self.position + at).wrapping_sub(self.known) as i64;
        match number.wrapping_sub(expected) {
            0 => Ok(Some(0)),
            lost if lost <= u32::MAX / 2 && (passed_over < 0 || i64::from(lost) <= passed_over) => {
                Ok(Some(lost.into()))
            }
            lost if lost > u32::MAX / 2 && passed_over != 0 => Ok(None),
            _ => Err(Corrupt("a record with another number than the next")),
        }
    }

    /// Copies a batch, or one longer record. Returns the number of words; `None` if any may have been overwritten.
    fn copy_batch(&mut self, ring: Ring<'_>, behind: u64) -> Option<u64> {
        let words = behind.min(BATCH_WORDS).min(ring.len() / 16).max(1);
        if !self.copy(ring, words) {
            return None;
        }
        let first = record_words(self.header(0).1);
        if first <= words || first > behind {
            return Some(words);
        }
        self.copy(ring, first).then_some(first)
    }

    /// Copies words. Returns false if they may have been overwritten meanwhile.
    fn copy(&mut self, ring: Ring<'_>, words: u64) -> bool {
        let bytes = words as usize * WORD;
        if self.batch.len() < bytes {
            self.batch.resize(bytes, 0);
        }
        let (chunks, _) = self.batch[..bytes].as_chunks_mut::<WORD>();
        let mut chunks = chunks.iter_mut();
        for piece in ring.pieces(self.position, words) {
            for (word, chunk) in piece.iter().zip(&mut chunks) {
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
        }
        is_kept(ring, self.position)
    }

    /// The number and length of the record at a word of the batch.
    fn header(&self, at: u64) -> (u32, usize) {
        let bytes = self.batch[at as usize * WORD..].first_chunk();
        let header = bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        ((header >> 32) as u32, header as u32 as usize)
    }
}

/// Whether the words from `position` on were not being overwritten.
#[inline]
fn is_kept(ring: Ring<'_>, position: u64) -> bool {
    fence(Ordering::Acquire);
    ring.reserved.load(Ordering::Relaxed).saturating_sub(position) <= ring.len()
        || ring.checkpoint.load(Ordering::Relaxed) <= position
}
