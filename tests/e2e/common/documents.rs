//! The documents as text: which there are, their headings, links, code blocks and commands.

use std::fs;
use std::path::{Path, PathBuf};

/// Documents outside `docs`.
const OTHERS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benches/README.md",
    "deploy/README.md",
    "proxy/README.md",
];

/// A document by its path from the root of the repository.
pub struct Document {
    pub path: String,
    pub text: String,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents, those below `docs` included.
pub fn all() -> Vec<Document> {
    let others = OTHERS.iter().map(|path| root().join(path));
    let mut paths: Vec<PathBuf> = others.chain(markdown_below(&root().join("docs"))).collect();
    paths.sort();
    let document = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(root()).expect("a file of ours").display().to_string();
        Document { path, text }
    };
    paths.iter().map(document).collect()
}

/// One document.
pub fn read(path: &str) -> Document {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Document { path: path.to_owned(), text }
}

fn markdown_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(markdown_below(&path));
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
    found
}

/// A code block: the word after its fence (nothing for an indented block), its first line's number, its lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub language: String,
    pub line: usize,
    pub text: String,
}

/// What a line of a document is part of.
enum Line<'a> {
    Prose(&'a str),
    /// A fence with its language begins or ends a block.
    Fence(&'a str),
    Code(&'a str),
}

fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let (mut fenced, mut in_paragraph) = (false, false);
    text.lines().enumerate().map(move |(index, line)| {
        let kind = if let Some(language) = line.trim_start().strip_prefix("```") {
            fenced = !fenced;
            Line::Fence(language.trim())
        } else if fenced {
            Line::Code(line)
        } else if let (Some(code), false) = (line.strip_prefix("    "), in_paragraph) {
            Line::Code(code)
        } else {
            in_paragraph = !line.is_empty();
            Line::Prose(line)
        };
        (index + 1, kind)
    })
}

/// All code blocks, fenced and indented.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut open, mut language) = (false, "");
    for (number, line) in lines(text) {
        match line {
            Line::Fence(word) => {
                language = if language.is_empty() { word } else { "" };
                open = false;
            }
            Line::Code(code) => {
                if !open {
                    found.push(Block { language: language.to_owned(), line: number, text: String::new() });
                    open = true;
                }
                let block = found.last_mut().expect("just opened");
                block.text.push_str(code);
                block.text.push('\n');
            }
            Line::Prose(_) => open = false,
        }
    }
    found
}

/// The first block of a language below a heading.
pub fn block_below(document: &str, heading: &str, language: &str) -> Block {
    let text = read(document).text;
    let at = text.lines().position(|line| line.trim_start_matches('#').trim() == heading);
    let at = at.unwrap_or_else(|| panic!("{document} has no heading {heading}"));
    let found = blocks(&text).into_iter().find(|block| block.line > at && block.language == language);
    found.unwrap_or_else(|| panic!("{document}: no block of {language} below {heading}"))
}

/// The text outside code blocks, line by line.
pub fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    lines(text).filter_map(|(number, line)| match line {
        Line::Prose(line) => Some((number, line)),
        Line::Fence(_) | Line::Code(_) => None,
    })
}

/// Commands in backquotes within the prose: what begins with the name of our program.
pub fn commands_in_prose(text: &str) -> Vec<(usize, String)> {
    let spans =
        prose(text).flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |span| (number, span)));
    spans.filter(|(_, span)| span.starts_with("percore ")).map(|(number, span)| (number, span.to_owned())).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
pub fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect();
        let before = found.iter().filter(|other| **other == anchor).count();
        found.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
    }
    found
}

/// The targets of a document's links and pictures.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // What stands in backquotes is no link.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in line.match_indices("](") {
            let target = &line[at + 2..];
            found.extend(target.find(')').map(|end| (number, target[..end].to_owned())));
        }
    }
    found
}
