//! The flags of an app that has a service: where the application behind the server asks it for things, who may, and how much
//! it may send.

use super::Failure;
use super::flags::Checked;
use super::units::bytes;
use crate::os::listener::ListenAddr;
use crate::reactor::check_open_to_all;
use crate::supervisor::ListenPattern;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

const DEFAULT: &str = "127.0.0.1:9465";

/// Where the application asks, whoever lets it in.
#[derive(Args, Debug, Clone)]
pub struct ServiceListenerFlags {
    /// Where the application behind the server is served: IP:PORT, [v6]:PORT or unix:PATH; repeatable
    #[arg(long, env = "PERCORE_SERVICE_LISTEN", value_name = "ADDR", value_delimiter = ',', help_heading = "Service")]
    #[arg(default_value = DEFAULT)]
    #[arg(
        long_help = "Where the application behind the server is served, and no client: IP:PORT, [v6]:PORT or unix:PATH; \
        repeatable. '{worker}' in it stands for the number of a worker; else any of them answers. An address that other \
        machines can reach needs the file with a token or key"
    )]
    service_listen: Vec<ListenPattern>,
    /// Longest content of a request; beyond it 413
    #[arg(long, env = "PERCORE_MAX_CONTENT", value_name = "BYTES", default_value = "1M", value_parser = bytes)]
    #[arg(help_heading = "Service")]
    max_content: usize,
}

impl ServiceListenerFlags {
    /// The addresses, each as it was given and as it is for the first worker.
    pub(super) fn first(&self) -> Result<Vec<(&ListenPattern, ListenAddr)>, Failure> {
        let addr = |pattern: &ListenPattern| {
            pattern.for_slot(0).map_err(|error| Failure::Usage(format!("--service-listen {error}")))
        };
        self.service_listen.iter().map(|pattern| Ok((pattern, addr(pattern)?))).collect()
    }

    /// Adds to what the other flags came to; with it the token that the listener demands.
    pub(super) fn apply(self, checked: &mut Checked, token: Option<String>) {
        checked.service = self.service_listen;
        checked.settings.service_token = token;
        checked.settings.max_content = self.max_content;
    }
}

/// Beside the flags of every server.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Service")]
pub struct ServiceFlags {
    #[command(flatten)]
    listener: ServiceListenerFlags,
    /// File with the token that has to be given there, as Authorization: Bearer
    #[arg(long, env = "PERCORE_SERVICE_TOKEN_FILE", value_name = "FILE", help_heading = "Service")]
    service_token_file: Option<PathBuf>,
}

/// The one word of a file that a flag names.
pub(super) fn word_of(flag: &str, path: &Path) -> Result<String, Failure> {
    let bad = |error: String| Failure::Usage(format!("--{flag} {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    match text.trim() {
        "" => Err(bad("it is empty: put a long random word there (openssl rand -hex 32)".into())),
        token if token.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Err(bad("it is to have one word and nothing else".into()))
        }
        token => Ok(token.to_owned()),
    }
}

impl ServiceFlags {
    /// Unless `--service-listen` says otherwise, listens there.
    ///
    /// # Errors
    /// When that is no address.
    pub(super) fn or_listen_at(mut self, addr: &str) -> Result<ServiceFlags, String> {
        if matches!(&self.listener.service_listen[..], [only] if only.to_string() == DEFAULT) {
            self.listener.service_listen = vec![addr.parse()?];
        }
        Ok(self)
    }

    /// Adds to what the other flags came to.
    pub(super) fn apply(self, checked: &mut Checked) -> Result<(), Failure> {
        let token = self.service_token_file.map(|path| word_of("service-token-file", &path)).transpose()?;
        if token.is_none() {
            for (pattern, addr) in self.listener.first()? {
                check_open_to_all(&addr)
                    .map_err(|error| Failure::Usage(format!("--service-listen {pattern}: {error}")))?;
            }
        }
        self.listener.apply(checked, token);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::{Defaults, ServerFlags};
    use super::*;
    use crate::net::rate::RateRules;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        server: ServerFlags,
        #[command(flatten)]
        service: ServiceFlags,
    }

    fn check(flags: &[&str]) -> Result<Checked, String> {
        let typed = [&["serve"], flags].concat();
        let Flags { server, service } = Flags::try_parse_from(typed).map_err(|error| error.to_string())?;
        let defaults = Defaults { port: 0, paths: &[], origins: &[], rates: RateRules::default() };
        let said = |failure| match failure {
            Failure::Usage(line) | Failure::Run(line) => line,
            Failure::Unread => "unread".to_owned(),
        };
        let mut checked = server.check(defaults).map_err(said)?;
        service.apply(&mut checked).map_err(said)?;
        Ok(checked)
    }

    fn listens(flags: &[&str]) -> Result<Vec<String>, String> {
        check(flags).map(|checked| checked.service.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_that_others_can_reach_needs_a_token() {
        assert_eq!(listens(&[]), Ok(vec!["127.0.0.1:9465".to_owned()]));
        for good in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "unix:/run/{worker}.sock", "127.9.9.9:1"] {
            assert_eq!(listens(&["--service-listen", good]), Ok(vec![good.to_owned()]));
        }
        for bad in ["0.0.0.0:0", "[::]:0", "10.0.0.1:9465", "[::ffff:10.0.0.1]:0"] {
            let said = listens(&["--service-listen", bad]).expect_err("refused");
            assert!(said.contains(bad) && said.contains("--service-token-file"), "{said}");
        }
    }

    #[test]
    fn the_token_is_the_one_word_of_a_file() -> std::io::Result<()> {
        let path = std::env::temp_dir().join(format!("percore-token-{}", std::process::id()));
        let flags = ["--service-listen", "0.0.0.0:0", "--service-token-file", path.to_str().unwrap_or_default()];
        for (text, token) in [("abc", Some("abc")), ("abc\n", Some("abc")), ("", None), ("\n", None), ("a b", None)] {
            fs::write(&path, text)?;
            let got = check(&flags);
            assert_eq!(got.as_ref().ok().and_then(|got| got.settings.service_token.as_deref()), token, "{text:?}");
            assert!(token.is_some() || got.is_err_and(|said| said.contains("--service-token-file")), "{text:?}");
        }
        fs::remove_file(&path)?;
        assert!(check(&flags).is_err_and(|said| said.contains("--service-token-file")));
        Ok(())
    }
}
