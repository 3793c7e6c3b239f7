//! Files with token keys, read again when they change. They are polled, not watched: a file that is replaced,
//! rewritten, or moved by a link above it (as Kubernetes does with secrets) has another stamp.

use crate::jwt::{KeySource, Keys, KeysError};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum size of such a file.
const MAX_BYTES: u64 = 1 << 20;

/// Identifies a state of a file: device, inode, length, and time of the last change.
type Stamp = [i64; 5];

struct KeyFile {
    /// The flag that names the file, for errors.
    flag: &'static str,
    path: PathBuf,
    read: fn(&str) -> Result<Keys, KeysError>,
    /// As of the last read; `None` if that failed.
    stamp: Option<Stamp>,
}

impl KeyFile {
    fn stamp_now(&self) -> Option<Stamp> {
        let data = fs::metadata(&self.path).ok()?;
        Some([data.dev() as i64, data.ino() as i64, data.len() as i64, data.mtime(), data.mtime_nsec()])
    }

    fn keys(&mut self) -> Result<Keys, String> {
        // Taken before the file is read: a later change is then detected next time.
        self.stamp = self.stamp_now();
        let error = |what: String| format!("--{} {}: {what}", self.flag, self.path.display());
        let file = fs::File::open(&self.path).map_err(|bad| error(bad.to_string()))?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|bad| error(bad.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(error("it is longer than 1 MiB".to_owned()));
        }
        (self.read)(&text).map_err(|bad| error(bad.to_string()))
    }
}

/// The files of one verifier.
pub struct KeyFiles(Vec<KeyFile>);

impl KeyFiles {
    /// Opens a file of secrets, named by `--jwt-secret-file`, and a JSON Web Key Set, named by `--jwks-file`. Returns
    /// them with their current keys.
    ///
    /// # Errors
    /// A sentence with the file and what is wrong with it.
    pub fn open(secrets: Option<&Path>, jwks: Option<&Path>) -> Result<(KeyFiles, Keys), String> {
        let file = |flag, path: &Path, read| KeyFile { flag, path: path.to_owned(), read, stamp: None };
        let secrets = secrets.map(|path| file("jwt-secret-file", path, Keys::read_secrets));
        let jwks = jwks.map(|path| file("jwks-file", path, Keys::read_jwks));
        let mut files = KeyFiles(secrets.into_iter().chain(jwks).collect());
        let keys = files.read()?;
        Ok((files, keys))
    }

    fn read(&mut self) -> Result<Keys, String> {
        // Takes the stamp of each file, also after an unreadable one.
        let all: Vec<_> = self.0.iter_mut().map(KeyFile::keys).collect();
        all.into_iter().try_fold(Keys::default(), |all, keys| Ok(all.and(keys?)))
    }
}

impl KeySource for KeyFiles {
    fn news(&mut self) -> Option<Result<Keys, String>> {
        let has_changed = self.0.iter().any(|file| file.stamp != file.stamp_now());
        has_changed.then(|| self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "the old secret, of at least thirty-two bytes";
    const NEW: &str = "the new secret, of at least thirty-two bytes.";

    #[test]
    fn files_are_read_again_when_they_change() -> std::io::Result<()> {
        let folder = std::env::temp_dir().join(format!("percore-keys-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (secret, jwks, other) = (folder.join("secret"), folder.join("jwks"), folder.join("other"));
        fs::write(&secret, OLD)?;
        fs::write(&jwks, r#"{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#)?;
        let (mut files, keys) = KeyFiles::open(Some(&secret), Some(&jwks)).expect("keys");
        let number = |keys: &Keys| format!("{keys:?}");
        assert_eq!(number(&keys), "2 keys");
        assert!(files.news().is_none());
        // Replaced by another file, as careful people do.
        fs::write(&other, format!("{OLD}\n{NEW}\n"))?;
        fs::rename(&other, &secret)?;
        assert_eq!(number(&files.news().expect("news").expect("keys")), "3 keys");
        assert!(files.news().is_none());
        // A missing file is reported once; then it is back.
        fs::remove_file(&jwks)?;
        let said = files.news().expect("news").expect_err("no file");
        assert!(said.starts_with("--jwks-file ") && said.contains("No such file"), "{said}");
        assert!(files.news().is_none());
        fs::write(&jwks, "{}")?;
        assert!(files.news().is_some_and(|news| news.is_err_and(|said| said.contains("list of \"keys\""))));
        assert!(files.news().is_none());
        fs::write(&secret, "x".repeat(2 << 20))?;
        let said = files.news().expect("news").expect_err("too long");
        assert!(said.contains("--jwt-secret-file") && said.contains("1 MiB"), "{said}");
        fs::remove_dir_all(&folder)?;
        assert!(KeyFiles::open(None, Some(&jwks)).is_err());
        Ok(())
    }
}
