//! Masking (RFC 6455, section 5.3): XOR with a four-byte key. The same operation masks and unmasks.
//!
//! Plain loops over blocks, which the compiler turns into vector code; for long payloads a version of the loop for the
//! CPU's widest registers is chosen at run time.

/// Below this, choosing costs more than wide registers gain.
const WIDE_FROM_BYTES: usize = 512;
const CACHE_LINE: usize = 64;
const BLOCK: usize = 32;
/// The rest after the last whole block is one such piece, overlapping the bytes before it.
const TAIL: usize = 16;

/// The masking key of a frame.
pub type Mask = [u8; 4];

/// The key rotated for payload offset `by`.
#[inline]
pub fn rotate(mask: Mask, by: usize) -> Mask {
    u32::from_ne_bytes(mask).to_le().rotate_right(8 * (by % 4) as u32).to_le_bytes()
}

/// Masks or unmasks `bytes` in place.
#[inline]
pub fn apply(bytes: &mut [u8], mask: Mask) {
    if bytes.len() < WIDE_FROM_BYTES {
        apply_blocks(bytes, mask);
    } else {
        apply_wide(bytes, mask);
    }
}

/// Masks or unmasks `from` into `to`.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn copy(from: &[u8], to: &mut [u8], mask: Mask) {
    assert_eq!(from.len(), to.len());
    if from.len() < WIDE_FROM_BYTES {
        copy_blocks(from, to, mask);
    } else {
        copy_wide(from, to, mask);
    }
}

fn apply_wide(bytes: &mut [u8], mask: Mask) {
    // A vector written across two cache lines costs two writes.
    let until_aligned = bytes.as_ptr().align_offset(CACHE_LINE).min(bytes.len());
    let (first, aligned) = bytes.split_at_mut(until_aligned);
    apply_blocks(first, mask);
    let mask = rotate(mask, first.len());
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the CPU has AVX2.
        return unsafe { apply_avx2(aligned, mask) };
    }
    apply_blocks(aligned, mask);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn apply_avx2(bytes: &mut [u8], mask: Mask) {
    apply_blocks(bytes, mask);
}

fn copy_wide(from: &[u8], to: &mut [u8], mask: Mask) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the CPU has AVX2.
        return unsafe { copy_avx2(from, to, mask) };
    }
    copy_blocks(from, to, mask);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_avx2(from: &[u8], to: &mut [u8], mask: Mask) {
    copy_blocks(from, to, mask);
}

/// XORs a block word by word, which becomes a vector operation or two.
#[inline(always)]
fn xor<const N: usize>(bytes: &[u8; N], mask: Mask) -> [u8; N] {
    let mut block = *bytes;
    for word in block.as_chunks_mut::<4>().0 {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    block
}

#[inline(always)]
fn apply_blocks(bytes: &mut [u8], mask: Mask) {
    let length = bytes.len();
    let Some(last) = bytes.last_chunk::<TAIL>() else { return apply_bytes(bytes, mask) };
    // The last block overlaps the one before it: it is computed first, and overwritten with the same result.
    let last = xor(last, rotate(mask, length - TAIL));
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    for block in blocks {
        *block = xor(block, mask);
    }
    if let Some(block) = rest.first_chunk_mut::<TAIL>() {
        *block = xor(block, mask);
    }
    if let Some(target) = bytes.last_chunk_mut::<TAIL>() {
        *target = last;
    }
}

#[inline(always)]
fn copy_blocks(from: &[u8], to: &mut [u8], mask: Mask) {
    let length = from.len();
    let (Some(last), Some(last_target)) = (from.last_chunk::<TAIL>(), to.last_chunk_mut::<TAIL>()) else {
        to.copy_from_slice(from);
        return apply_bytes(to, mask);
    };
    *last_target = xor(last, rotate(mask, length - TAIL));
    let (from_blocks, from_rest) = from.as_chunks::<BLOCK>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<BLOCK>();
    for (from, to) in from_blocks.iter().zip(to_blocks) {
        *to = xor(from, mask);
    }
    if let (Some(from), Some(to)) = (from_rest.first_chunk::<TAIL>(), to_rest.first_chunk_mut::<TAIL>()) {
        *to = xor(from, mask);
    }
}

/// For payloads shorter than a vector.
#[inline(never)]
fn apply_bytes(bytes: &mut [u8], mask: Mask) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_rfc_byte_by_byte(payload in prop::collection::vec(any::<u8>(), 0..2000), mask: Mask, cut in 0usize..2000) {
            let want: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            let mut copied = vec![0; payload.len()];
            copy(&payload, &mut copied, mask);
            prop_assert_eq!(&copied, &want);

            // In two pieces, with the key rotated to the start of the second.
            let mut pieces = payload.clone();
            let cut = cut.min(pieces.len());
            let (first, second) = pieces.split_at_mut(cut);
            apply(first, mask);
            apply(second, rotate(mask, cut));
            prop_assert_eq!(&pieces, &want);
        }
    }
}
