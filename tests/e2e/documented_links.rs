//! Every link in the documents has a target, and every figure in the README has a source.

use crate::common::documents::{self, Document};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The links of a document that lead to no file or to no heading.
fn broken(document: &Document, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
    let leads_nowhere = |target: &str| {
        if target.contains("://") || target.starts_with("mailto:") {
            return false;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let text = if path.is_empty() { Some(document.text.clone()) } else { read(&folder.join(path)) };
        match text {
            None => true,
            Some(text) => !anchor.is_empty() && !documents::anchors(&text).iter().any(|own| own == anchor),
        }
    };
    let found = documents::links(&document.text).into_iter().filter(|(_, target)| leads_nowhere(target));
    found.map(|(line, target)| format!("{}:{line}: {target}", document.path)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    // A folder is as good as a file, and has no headings.
    let read = |path: &Path| {
        let path = documents::root().join(path);
        if path.is_dir() { Some(String::new()) } else { fs::read_to_string(path).ok() }
    };
    let found: Vec<String> = documents::all().iter().flat_map(|document| broken(document, read)).collect();
    assert!(found.is_empty(), "links that lead nowhere:\n{}", found.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let text = "# One\n\n[a](b.md) [b](#one) [c](#two) [d](c.md) `[e](d.md)` [f](b.md#there) [g](b.md#not)\n\n\
                ```sh\n[h](e.md)\n```\n[i](https://example.org/x)\n";
    let document = Document { path: "docs/a.md".into(), text: text.into() };
    let read = |path: &Path| (path == Path::new("docs/b.md")).then(|| "## There\n".to_owned());
    let found = broken(&document, read);
    assert_eq!(found, ["docs/a.md:3: #two", "docs/a.md:3: c.md", "docs/a.md:3: b.md#not"]);
    let anchors = documents::anchors("# A `b`, c: d\n## A `b`, c: d\n```\n# no\n```\n");
    assert_eq!(anchors, ["a-b-c-d", "a-b-c-d-1"]);
}

/// Numbers with their units, such as `18.5k`, `0.97`, `1,000`.
fn figures(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ',');
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches(['.', ',']));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

/// The part of a document below the heading of an anchor, up to the next heading.
fn section<'a>(text: &'a str, anchor: &str) -> Vec<&'a str> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    let mut anchors = documents::anchors(text).into_iter();
    for (_, line) in documents::prose(text) {
        if line.starts_with('#') {
            sections.push((anchors.next().expect("an anchor for each heading"), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections.into_iter().find(|(own, _)| own == anchor).map(|(_, lines)| lines).unwrap_or_default()
}

/// Figures in the rows of a table that do not stand in the section each row links to.
fn without_source(table: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| [")) {
        let target =
            documents::links(row).into_iter().find_map(|(_, target)| Some(target.split_once('#')?.1.to_owned()));
        let there = figures(&section(source, &target.unwrap_or_default()).join("\n"));
        let values = row.split_once(") | ").map_or(row, |(_, values)| values);
        found.extend(
            figures(values).into_iter().filter(|figure| !there.contains(figure)).map(|f| format!("{f}: {row}")),
        );
    }
    found
}

#[test]
fn every_figure_of_the_readme_has_its_source() {
    let readme = documents::read("README.md").text;
    let (_, numbers) = readme.split_once("## Numbers\n").expect("a section");
    let numbers = numbers.split("\n## ").next().expect("the section");
    assert_eq!(numbers.lines().filter(|line| line.starts_with("| [")).count(), 8);
    let missing = without_source(numbers, &documents::read("benches/README.md").text);
    assert!(missing.is_empty(), "benches/README.md does not have:\n{}", missing.join("\n"));
}

#[test]
fn the_tables_are_those_of_the_results() {
    let root = documents::root();
    let compare = Command::new(root.join("benches/compare")).arg("--check").output().expect("it runs");
    assert!(compare.status.success(), "benches/README.md has other tables: benches/compare --render");
    let results = root.join("benches/results/hostile.json");
    let hostile = Command::new(root.join("benches/hostile")).arg("--markdown").arg("--from").arg(results).output();
    let shown = String::from_utf8(hostile.expect("it runs").stdout).expect("text");
    let table = shown.find("| attack ").map(|at| shown[at..].trim()).expect("a table");
    let security = documents::read("docs/security.md").text;
    assert!(security.contains(table), "docs/security.md has another table: benches/hostile --from ... --markdown");
    let gateway = Command::new(root.join("benches/gateway")).arg("--render").output().expect("it runs");
    let shown = String::from_utf8(gateway.stdout).expect("text");
    let benches = documents::read("benches/README.md").text;
    assert!(
        !shown.is_empty() && benches.contains(shown.trim()),
        "benches/README.md has another table: benches/gateway --render"
    );
}

#[test]
fn a_figure_without_a_source_is_found() {
    let source = "# A\n| 1.16 | 18.5k (16 to 20) |\n## B\n0.99\n";
    assert!(without_source("| [x](b.md#a) | 1.16 | y 18.5k, 20 |\n", source).is_empty());
    assert_eq!(without_source("| [x](b.md#a) | 1.16 | 0.99 |\n", source).len(), 1);
    assert_eq!(without_source("| [x](b.md#none) | 1.16 |\n", source).len(), 1);
}

/// Pages of a folder that a document does not link to.
fn unlisted(index: &Document, pages: &[String]) -> Vec<String> {
    let folder = Path::new(&index.path).parent().unwrap_or(Path::new(""));
    let linked: Vec<_> = documents::links(&index.text).into_iter().map(|(_, target)| folder.join(target)).collect();
    pages.iter().filter(|page| !linked.iter().any(|target| target == Path::new(page))).cloned().collect()
}

#[test]
fn every_page_is_in_its_index() {
    let pages: Vec<String> = documents::all().into_iter().map(|document| document.path).collect();
    let (rooms, pages): (Vec<String>, Vec<String>) = pages
        .into_iter()
        .filter(|path| path.starts_with("docs/") && path != "docs/README.md")
        .partition(|path| path.starts_with("docs/architecture/"));
    assert_eq!(unlisted(&documents::read("docs/README.md"), &pages), [""; 0]);
    assert_eq!(unlisted(&documents::read("ARCHITECTURE.md"), &rooms), [""; 0]);

    let index = Document { path: "docs/README.md".into(), text: "[a](a.md)".into() };
    assert_eq!(unlisted(&index, &["docs/a.md".into(), "docs/b.md".into()]), ["docs/b.md"]);
}

#[test]
fn the_readme_is_short() {
    let lines = documents::read("README.md").text.lines().count();
    assert!(lines <= 150, "{lines} lines: put it into docs");
}
