//! Log records for the logger of the crate `log`, in place of lines on standard error.

use crate::telemetry::log::{Level, Record};

/// Passes a record to the logger, if there is one.
pub(super) fn to_facade(record: &Record) {
    let level = match record.level {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    };
    log::log!(target: &format!("percore::{}", record.event), level, "{}", record.text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::log_writer::{LogFormat, write_log};
    use crate::telemetry::log::Log;
    use std::sync::Mutex;

    struct Notes(Mutex<Vec<String>>);

    impl log::Log for Notes {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {} {}", record.level(), record.target(), record.args());
            self.0.lock().expect("not poisoned").push(line);
        }

        fn flush(&self) {}
    }

    #[test]
    fn records_go_to_the_logger() {
        static NOTES: Notes = Notes(Mutex::new(Vec::new()));
        log::set_logger(&NOTES).expect("the only one");
        log::set_max_level(log::LevelFilter::Info);
        let mut log = Log::new(Some(Level::Debug));
        log.push(Level::Warn, "slow-consumer", &[], "is closed".into());
        log.push(Level::Debug, "open", &[], "is open".into());
        write_log(LogFormat::Facade, &mut log);
        assert!(log.is_empty());
        assert_eq!(*NOTES.0.lock().expect("not poisoned"), ["WARN percore::slow-consumer is closed"]);
    }
}
