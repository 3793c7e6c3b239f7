//! The history file: what was typed on a terminal, one entry per line.

use super::editor::is_worth_keeping;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Lines to keep.
const MOST_LINES: usize = 1000;

/// The history, in a file that only its user may read, or nowhere.
#[derive(Default)]
pub struct History {
    file: Option<File>,
    last: Option<String>,
}

impl History {
    /// Opens the file and returns its lines. Without a usable file the client goes on without a history.
    pub fn open(path: Option<&Path>) -> (History, Vec<String>) {
        let Some(path) = path else { return (History::default(), Vec::new()) };
        let mut lines: Vec<String> = fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
            .unwrap_or_default();
        let file = if lines.len() > MOST_LINES {
            lines.drain(..lines.len() - MOST_LINES);
            shorten(path, &lines)
        } else {
            append_to(path)
        };
        (History { file: file.ok(), last: lines.last().cloned() }, lines)
    }

    /// Keeps a line, unless it is a paste of several.
    pub fn add(&mut self, line: &str) {
        let is_kept = is_worth_keeping(line, self.last.as_ref()) && !line.contains('\n');
        if let Some(file) = self.file.as_mut().filter(|_| is_kept) {
            let _ = file.write_all(format!("{line}\n").as_bytes());
            self.last = Some(line.to_owned());
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Replaces the file by one with only the last lines.
fn shorten(path: &Path, lines: &[String]) -> io::Result<File> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = append_to(&new)?;
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    fs::rename(&new, path)?;
    Ok(file)
}

/// Returns its path: `percore/history` in the state folder of the XDG Base Directory Specification.
pub fn path() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("percore/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_and_bounded() {
        let folder = std::env::temp_dir().join(format!("percore-history-{}", std::process::id()));
        let path = folder.join("deep/history");
        let (mut history, lines) = History::open(Some(&path));
        assert!(lines.is_empty());
        ["a", "a", " ", "b"].iter().for_each(|line| history.add(line));
        assert_eq!(History::open(Some(&path)).1, ["a", "b"]);
        (0..MOST_LINES).for_each(|n| history.add(&n.to_string()));
        let (mut history, lines) = History::open(Some(&path));
        assert_eq!((lines.len(), &lines[0][..]), (MOST_LINES, "0"));
        history.add("last");
        assert_eq!(History::open(Some(&path)).1.last().map(String::as_str), Some("last"));
        assert_eq!(fs::read_to_string(&path).expect("a file").lines().count(), MOST_LINES);
        fs::remove_dir_all(folder).expect("it is there");
        assert!(History::open(Some(Path::new("/proc/no/such"))).1.is_empty());
    }
}
