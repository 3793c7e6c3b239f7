//! A command at work: what it is told, and what it says.

use super::{Killed, PATIENCE, eventually, exit_code, send_signal};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Lines so far, and whether that is all.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<(Vec<String>, bool)>>);

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                writer.0.lock().expect("lines").0.push(line);
            }
            writer.0.lock().expect("lines").1 = true;
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("lines").0.clone()
    }

    fn to_the_end(&self) -> Vec<String> {
        eventually("the end of what it says", || self.0.lock().expect("lines").1);
        self.all()
    }
}

/// A running command. Dropping it kills it.
pub struct Program {
    child: Killed,
    input: Option<ChildStdin>,
    out: Lines,
    err: Lines,
}

impl Program {
    /// Starts it.
    pub fn start(mut command: Command) -> Program {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Program { child: Killed(child), input, out: Lines::read(out), err: Lines::read(err) }
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child.0
    }

    /// Gives it bytes to read.
    pub fn types(&mut self, bytes: impl AsRef<[u8]>) {
        self.input.as_mut().expect("not ended").write_all(bytes.as_ref()).expect("it reads");
    }

    /// The writing end of its input, which it ends by being dropped.
    pub fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("not ended")
    }

    /// Standard output so far.
    pub fn out(&self) -> Vec<String> {
        self.out.all()
    }

    /// Standard error so far.
    pub fn err(&self) -> Vec<String> {
        self.err.all()
    }

    /// Waits until so many lines of standard output contain `text`.
    pub fn shows(&self, text: &str, times: usize) {
        self.wait_for(&self.out, text, times);
    }

    /// Waits until so many lines of standard error contain `text`.
    pub fn says(&self, text: &str, times: usize) {
        self.wait_for(&self.err, text, times);
    }

    fn wait_for(&self, lines: &Lines, text: &str, times: usize) {
        let start = Instant::now();
        while lines.all().iter().filter(|line| line.contains(text)).count() < times {
            assert!(start.elapsed() < PATIENCE, "no {times} times '{text}':\n{:#?}\n{:#?}", self.out(), self.err());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&self, signal: &str) {
        send_signal(&self.child.0, signal);
    }

    /// Waits for its end, with its input left as it is: exit code, standard output and standard error.
    pub fn ends(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let code = exit_code(&mut self.child.0);
        (code, self.out.to_the_end(), self.err.to_the_end())
    }
}
