//! Flags that take one of several words, for more than one command.

use crate::os::log_writer::LogFormat;
use crate::protocol::extension::DeflateMode;
use crate::telemetry::log::Level;
use clap::ValueEnum;

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum DeflateFlag {
    Off,
    NoTakeover,
    Takeover,
}

impl From<DeflateFlag> for DeflateMode {
    fn from(flag: DeflateFlag) -> DeflateMode {
        match flag {
            DeflateFlag::Off => DeflateMode::Off,
            DeflateFlag::NoTakeover => DeflateMode::NoTakeover,
            DeflateFlag::Takeover => DeflateMode::Takeover,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum LevelFlag {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LevelFlag> for Option<Level> {
    fn from(flag: LevelFlag) -> Option<Level> {
        match flag {
            LevelFlag::Off => None,
            LevelFlag::Error => Some(Level::Error),
            LevelFlag::Warn => Some(Level::Warn),
            LevelFlag::Info => Some(Level::Info),
            LevelFlag::Debug => Some(Level::Debug),
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum FormatFlag {
    Text,
    Json,
}

impl From<FormatFlag> for LogFormat {
    fn from(flag: FormatFlag) -> LogFormat {
        match flag {
            FormatFlag::Text => LogFormat::Text,
            FormatFlag::Json => LogFormat::Json,
        }
    }
}
