//! Words of memory that processes share: one of them writes, any may read.
//!
//! The memory is an anonymous file (`memfd_create(2)`), its size sealed, so that no process can make another's access
//! fault. It is passed to another process as a descriptor.
//!
//! Invariant: the mapping has `words` words, is aligned to a page, and lives as long as the value.
#![allow(unsafe_code)]

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A sequence of words in shared memory, initially zero.
#[derive(Debug)]
pub struct SharedWords {
    memory: NonNull<AtomicU64>,
    words: usize,
    file: OwnedFd,
}

// SAFETY: the memory is only accessed as atomics, and belongs to no thread.
unsafe impl Send for SharedWords {}
// SAFETY: likewise; `&SharedWords` only gives `&[AtomicU64]`.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Creates this many words. `name` appears in `/proc/PID/maps`.
    ///
    /// # Errors
    /// As `memfd_create(2)`, `ftruncate(2)` and `mmap(2)`; `InvalidInput` for zero words.
    pub fn create(name: &str, words: usize) -> io::Result<SharedWords> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, (words * size_of::<u64>()) as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        SharedWords::map(file, words)
    }

    /// Maps words that another process created.
    ///
    /// # Errors
    /// `InvalidData` when the file has another size, or could still shrink; as `mmap(2)`.
    pub fn open(file: OwnedFd, words: usize) -> io::Result<SharedWords> {
        let same_size = fstat(&file)?.st_size == (words * size_of::<u64>()) as i64;
        if !same_size || !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory of a different size"));
        }
        SharedWords::map(file, words)
    }

    /// Maps the words of a file that others map too. Processes that may write to the file must not make it shorter, or
    /// an access beyond its end kills this process with SIGBUS.
    ///
    /// # Errors
    /// `InvalidData` when the file has another size; as `mmap(2)`.
    pub fn map_file(file: &File, words: usize) -> io::Result<SharedWords> {
        let bytes = file.metadata()?.len();
        if bytes != (words * size_of::<u64>()) as u64 {
            let text = format!("it has {bytes} bytes, not the {} of its header", words * size_of::<u64>());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        SharedWords::map(file.try_clone()?.into(), words)
    }

    fn map(file: OwnedFd, words: usize) -> io::Result<SharedWords> {
        let (bytes, protection) = (words * size_of::<u64>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at an address chosen by the kernel touches no memory in use.
        let memory = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &file, 0) }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(SharedWords { memory, words, file })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: by the invariant there are this many words, mapped as long as `self` lives. A sealed file keeps them;
        // a missing page of another file is a signal, not undefined. Other processes that map them use atomics too.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.words) }
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of that size, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_one_writes_the_other_reads() {
        let ours = SharedWords::create("percore-test", 1000).expect("memory");
        let theirs =
            SharedWords::open(ours.as_fd().try_clone_to_owned().expect("a descriptor"), 1000).expect("the same");
        assert!(theirs.iter().all(|word| word.load(Relaxed) == 0));
        ours[999].store(7, Relaxed);
        assert_eq!(theirs[999].load(Relaxed), 7);
        drop(ours);
        assert_eq!((theirs.len(), theirs[999].load(Relaxed)), (1000, 7));
    }

    #[test]
    fn only_memory_of_the_right_size_that_stays_so() {
        let ours = SharedWords::create("percore-test", 10).expect("memory");
        let file = || ours.as_fd().try_clone_to_owned().expect("a descriptor");
        assert!(SharedWords::open(file(), 11).is_err());
        assert!(ftruncate(file(), 8).is_err(), "sealed");
        let unsealed = memfd_create("percore-test", MemfdFlags::CLOEXEC).expect("a file");
        ftruncate(&unsealed, 80).expect("a size");
        assert!(SharedWords::open(unsealed, 10).is_err());
        assert!(SharedWords::create("percore-test", 0).is_err());
    }
}
