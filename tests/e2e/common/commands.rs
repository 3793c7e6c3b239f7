//! Shell commands as they stand in a code block, taken apart as a shell does, without running any.

/// A simple command: its words, without assignments, redirections and what only leads to it, such as `sudo`.
pub type Words = Vec<String>;

/// Words that begin or end a compound command, or run the command that follows.
const BEFORE_A_COMMAND: [&str; 11] = ["until", "while", "if", "then", "else", "do", "exec", "sudo", "time", "!", "{"];
/// Words that are no command of their own.
const ALONE: [&str; 4] = ["done", "fi", "}", "for"];

/// All simple commands of a script, in order.
pub fn commands(script: &str) -> Vec<Words> {
    let mut found: Vec<Words> = vec![Words::new()];
    let mut rest = script;
    while !rest.is_empty() {
        let (word, after) = token(rest);
        rest = after;
        match word {
            Token::Word(word) => found.last_mut().expect("never empty").push(word),
            Token::End => found.push(Words::new()),
            Token::Nothing => {}
        }
    }
    found.into_iter().map(simple).filter(|words| !words.is_empty()).collect()
}

enum Token {
    Word(String),
    /// Of a simple command.
    End,
    Nothing,
}

/// The first token of a script, and what follows.
fn token(script: &str) -> (Token, &str) {
    let first = script.chars().next().unwrap_or('\n');
    match first {
        '\\' if script[1..].starts_with('\n') => (Token::Nothing, &script[2..]),
        ' ' | '\t' => (Token::Nothing, &script[1..]),
        '#' => (Token::Nothing, &script[script.find('\n').unwrap_or(script.len())..]),
        '\n' | ';' | '|' | '&' | '(' | ')' => (Token::End, script.get(1..).unwrap_or_default()),
        _ => word(script),
    }
}

/// A word up to what ends it; quotes are taken off, `$(...)` stays whole.
fn word(script: &str) -> (Token, &str) {
    let (mut text, mut quote, mut depth) = (String::new(), None, 0_usize);
    let mut chars = script.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (Some('\''), _) => text.push(c),
            (_, '\\') => text.extend(chars.next().map(|(_, c)| c)),
            (_, '$') if next == Some('(') => {
                depth += 1;
                text.push(c);
            }
            (_, ')') if depth > 0 => {
                depth -= 1;
                text.push(c);
            }
            // A redirection such as `2>&1` is one word.
            (None, '&') if text.ends_with('>') => text.push(c),
            (None, ' ' | '\t' | '\n' | ';' | '|' | '&' | '(' | ')') if depth == 0 => {
                return (Token::Word(text), &script[at..]);
            }
            _ => text.push(c),
        }
    }
    (Token::Word(text), "")
}

/// A command without what only leads to it and where its input and output go.
fn simple(words: Words) -> Words {
    let is_assignment = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let leads = |word: &String| is_assignment(word) || BEFORE_A_COMMAND.contains(&word.as_str());
    let mut words: Words = words.into_iter().skip_while(leads).collect();
    if words.first().is_some_and(|word| ALONE.contains(&word.as_str())) {
        return Words::new();
    }
    let mut kept = Words::new();
    let mut rest = words.drain(..);
    while let Some(word) = rest.next() {
        let target = word.trim_start_matches(|c: char| c.is_ascii_digit());
        match target.strip_prefix(['>', '<']) {
            Some("" | ">" | "<") => drop(rest.next()),
            Some(_) => {}
            None => kept.push(word),
        }
    }
    kept
}

#[test]
fn a_script_is_taken_apart() {
    let script = "A=1 sudo percore serve echo & # comment\nuntil x \"a b\" 2> /dev/null | y -q 'c;d'; do sleep 1; done\n\
                  echo '{\"a\":1}' |\n    z $(pidof p | q) \\\n  --flag 2>&1\ntest > file";
    let expected: [&[&str]; 7] = [
        &["percore", "serve", "echo"],
        &["x", "a b"],
        &["y", "-q", "c;d"],
        &["sleep", "1"],
        &["echo", "{\"a\":1}"],
        &["z", "$(pidof p | q)", "--flag"],
        &["test"],
    ];
    assert_eq!(commands(script), expected);
}
