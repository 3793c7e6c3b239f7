//! `percore serve channels`: its flags, and what they come to.

use super::Failure;
use super::bus_flags::BusPlace;
use super::channels_config;
use super::flags::{Checked, Defaults, ServerFlags};
use super::jwt_flags::JwtFlags;
use super::keeper::{FilesFlags, outside};
use super::service_flags::{ServiceListenerFlags, word_of};
use super::units::{boolean, bytes, duration};
use super::workers::Workers;
use crate::jwt::Verifier;
use crate::keeper::Setup;
use crate::net::rate::RateRules;
use crate::origin::{self, CallRules, Target};
use crate::os::listener::ListenAddr;
use crate::os::tls::TlsClient;
use crate::outbox::SlowConsumer;
use crate::pubsub::app::{Channels, PATH, SUBPROTOCOL};
use crate::pubsub::pusher::Pusher;
use crate::pubsub::rules::Rules;
use crate::pubsub::tokens::Tokens;
use crate::reactor::Waker;
use crate::telemetry::log::Level;
use clap::Args;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a client says may go to everyone.
const RATES: RateRules = RateRules { messages: 200, bytes: 256 << 10, channel: 1 << 20 };

#[derive(Args, Debug)]
#[command(next_help_heading = "Channels")]
pub(super) struct ChannelsFlags {
    /// TOML file that says what may be done on which channel; percore config check FILE looks at it
    #[arg(long, env = "PERCORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let everyone do everything without a token, as it is on 127.0.0.1 when none of the flags for tokens is given
    #[arg(long, env = "PERCORE_INSECURE")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    insecure: bool,
    /// Publications that are kept of each channel without a namespace, for clients that come back; 0 for none
    #[arg(long, env = "PERCORE_HISTORY_SIZE", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(..=100_000))]
    history_size: Option<u32>,
    /// How long they are kept [default: 5m]
    #[arg(long, env = "PERCORE_HISTORY_TTL", value_name = "TIME", value_parser = duration)]
    history_ttl: Option<Duration>,
    /// Bytes of all histories; the channels that were published on least recently lose theirs first [default: 256M]
    #[arg(long, env = "PERCORE_HISTORY_BYTES", value_name = "BYTES", value_parser = bytes)]
    history_bytes: Option<usize>,
    #[command(flatten)]
    files: FilesFlags,
    /// Tell who is on channels without a namespace, and who comes and goes
    #[arg(long, env = "PERCORE_PRESENCE")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    presence: bool,
    /// Channels that a client may be on [default: 128]
    #[arg(long, env = "PERCORE_MAX_CHANNELS", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_channels: Option<u32>,

    #[command(flatten)]
    service: ServiceListenerFlags,
    /// File with the key that backends have to give, as X-API-Key
    #[arg(long, env = "PERCORE_API_KEY_FILE", value_name = "FILE", help_heading = "Service")]
    api_key_file: Option<PathBuf>,

    #[command(flatten)]
    tokens: JwtFlags,
    #[command(flatten)]
    server: ServerFlags,
}

/// What the flags of channels come to, besides those of every server.
pub(super) struct Plan {
    rules: Rules,
    verifier: Option<Verifier>,
    api_key: Option<String>,
    commands: u32,
    history: Option<CommonHistory>,
}

/// A history that a keeper writes.
pub(super) struct CommonHistory {
    /// Where, if not in the folder of the bus.
    folder: Option<PathBuf>,
    files: FilesFlags,
    mode: u32,
    max_bytes: usize,
}

impl CommonHistory {
    /// The folder, if it is not that of the bus.
    pub(super) fn own_folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Where the files are, for processes on a bus.
    pub(super) fn folder<'a>(&'a self, bus: &'a Path) -> &'a Path {
        self.folder.as_deref().unwrap_or(bus)
    }

    /// What its keeper goes by, on a bus.
    pub(super) fn setup(&self, bus: &Path) -> Setup {
        let folder = self.folder(bus).to_owned();
        Setup {
            bus: bus.to_owned(),
            folder,
            mode: self.mode,
            sync: self.files.history_sync.into(),
            max_bytes: self.max_bytes,
        }
    }
}

/// Reads a configuration file.
pub(super) fn read_config(path: &Path) -> Result<Rules, Failure> {
    let bad = |error: String| Failure::Usage(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    channels_config::read(&text).map_err(|mistake| bad(mistake.to_string()))
}

impl ChannelsFlags {
    /// Checks the flags.
    pub(super) fn check(self) -> Result<(Plan, Checked), Failure> {
        let mut rules = self.rules()?;
        let verifier = self.tokens.verifier().map_err(Failure::Usage)?;
        if self.insecure && verifier.is_some() {
            return Err(Failure::Usage("--insecure leaves tokens unread: give either it or keys for tokens".into()));
        }
        let api_key = self.api_key_file.as_deref().map(|path| word_of("api-key-file", path)).transpose()?;
        let server = self.server.and_subprotocols([SUBPROTOCOL.to_owned()].into_iter());
        let mut checked = server.check(Defaults { port: 8000, paths: &[PATH], origins: &["same"], rates: RATES })?;
        let open = self.service.first()?.into_iter().find(|(_, addr)| is_public(addr));
        if let Some((pattern, _)) = open.filter(|_| api_key.is_none()) {
            return Err(Failure::Usage(format!(
                "--service-listen {pattern}: other machines could publish; give --api-key-file FILE, or listen on \
                 127.0.0.1 or a unix socket"
            )));
        }
        // Without a word about who may do what, on this machine, everyone may do everything.
        let has_rules = verifier.is_some() || rules.allows_anonymous || rules.pusher.is_some();
        let mut public = None;
        for pattern in &checked.listen {
            let addr = pattern.for_slot(0).map_err(|error| Failure::Usage(format!("--listen {error}")))?;
            if is_public(&addr) {
                public = Some(pattern.to_string());
            }
        }
        match public {
            Some(pattern) if !self.insecure && !has_rules => {
                return Err(Failure::Usage(format!(
                    "--listen {pattern}: without tokens everyone could publish; give --jwt-secret-file FILE or \
                     --jwks-file FILE, or --insecure if that is what you want"
                )));
            }
            Some(pattern) if self.insecure => {
                let text = format!("--insecure: everyone who reaches {pattern} may do everything on every channel");
                checked.log.push(Level::Warn, "insecure", &[("listen", &pattern)], text);
            }
            _ => {}
        }
        rules.is_insecure = self.insecure || !has_rules;
        rules.is_local = rules.is_insecure && !self.insecure;
        if rules.is_insecure {
            rules.plain = rules.plain.open_to_all();
            rules.namespaces.values_mut().for_each(|namespace| *namespace = namespace.open_to_all());
        }
        if rules.pusher.as_ref().is_some_and(|app| app.webhook.is_some()) && !is_one_process(&checked) {
            return Err(Failure::Usage(
                "webhooks are sent by one process: leave out --workers and --bus, or webhook_url".into(),
            ));
        }
        let history = check_history(&rules, &checked, self.files)?;
        checked.settings.upgrade.paths.extend(rules.pusher.as_ref().map(Pusher::path));
        self.service.apply(&mut checked, api_key.clone());
        let commands = checked.settings.rates.messages;
        Ok((Plan { rules, verifier, api_key, commands, history }, checked))
    }

    fn rules(&self) -> Result<Rules, Failure> {
        let mut rules = match &self.config {
            Some(path) => read_config(path)?,
            None => Rules::default(),
        };
        let (plain, limits) = (&mut rules.plain, &mut rules.limits);
        if let Some(size) = self.history_size {
            plain.keep.size = size as usize;
        }
        plain.keep.ttl = self.history_ttl.unwrap_or(plain.keep.ttl);
        plain.presence |= self.presence;
        plain.join_leave |= self.presence;
        limits.history = self.history_bytes.unwrap_or(limits.history);
        limits.client_channels = self.max_channels.map_or(limits.client_channels, |most| most as usize);
        Ok(rules)
    }
}

/// Whether no other process serves the same channels.
fn is_one_process(checked: &Checked) -> bool {
    checked.workers == Workers::Plain && matches!(checked.bus, BusPlace::Private | BusPlace::Off)
}

/// Refuses what cannot be kept to with a history. Returns what a keeper is to write, if one is needed.
fn check_history(rules: &Rules, checked: &Checked, files: FilesFlags) -> Result<Option<CommonHistory>, Failure> {
    if !rules.all().any(|namespace| namespace.has_history()) {
        return match files.history_dir {
            Some(_) => Err(Failure::Usage(
                "--history-dir: no channel has a history; give --history-size N, or set history_size in the file of \
                 --config"
                    .into(),
            )),
            None => Ok(None),
        };
    }
    if checked.settings.send.slow_consumer == SlowConsumer::Drop {
        return Err(Failure::Usage(
            "--slow-consumer drop would leave holes where there is a history: use close, after which a client gets what it \
             missed"
                .into(),
        ));
    }
    if checked.workers != Workers::Plain && checked.bus == BusPlace::Off {
        return Err(Failure::Usage(
            "--bus off: workers have their history in common by a bus; leave it out, or set history_size to 0".into(),
        ));
    }
    let is_alone = checked.workers == Workers::Plain && !matches!(checked.bus, BusPlace::Folder(_));
    Ok((files.history_dir.is_some() || !is_alone).then(|| CommonHistory {
        folder: files.history_dir.clone(),
        files,
        mode: checked.bus_options.mode,
        max_bytes: rules.limits.history,
    }))
}

fn is_public(addr: &ListenAddr) -> bool {
    matches!(addr, ListenAddr::Tcp(addr) if !addr.ip().to_canonical().is_loopback())
}

impl Plan {
    /// The history that a keeper writes, if there is one.
    pub(super) fn history(&self) -> Option<&CommonHistory> {
        self.history.as_ref()
    }

    /// The app, of a process on a bus or not; and, if there are webhooks, the thread that makes their calls and wakes the app by
    /// `waker`.
    ///
    /// # Errors
    /// No random numbers, no thread, no certificates.
    pub(super) fn start(self, seed: [u8; 32], bus: Option<&Path>, waker: &Waker) -> io::Result<Channels> {
        let webhook = self.rules.pusher.as_ref().and_then(|app| app.webhook.clone());
        let mut app = Channels::new(self.rules, Tokens::new(self.verifier), seed)
            .command_rate(self.commands)
            .api_key(self.api_key);
        if let (Some(history), Some(bus)) = (&self.history, bus) {
            app = app.share_history(outside(history.folder(bus))?);
        }
        let Some(url) = webhook else { return Ok(app) };
        let target = Target::origin(&url).map_err(io::Error::other)?;
        let tls = target.is_encrypted().then(|| TlsClient::new(None)).transpose()?;
        let link = origin::start(vec![target], CallRules { tls, ..CallRules::default() }, waker.clone())?;
        let returns = Arc::clone(link.returns());
        Ok(app.webhooks(move |call| link.call(call), returns))
    }
}
