//! The listeners of workers: one for each on the same port, or one that all share.

use super::WORKER_COMMAND;
use crate::os::inherited;
use crate::os::listener::{self, BindOptions, ListenAddr, Listener};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The listeners of a slot.
#[derive(Clone, Default, Debug)]
pub struct SlotListeners {
    /// For clients.
    pub public: Vec<Rc<Listener>>,
    /// For the application behind the server.
    pub service: Vec<Rc<Listener>>,
}

impl SlotListeners {
    /// Returns all of them, those for clients first.
    pub fn all(&self) -> impl Iterator<Item = &Rc<Listener>> {
        self.public.iter().chain(&self.service)
    }

    /// Returns those that `other` does not have.
    pub fn without(&self, other: &SlotListeners) -> SlotListeners {
        let is_own = |listener: &&Rc<Listener>| !other.all().any(|shared| Rc::ptr_eq(shared, listener));
        let own = |listeners: &[Rc<Listener>]| listeners.iter().filter(is_own).cloned().collect();
        SlotListeners { public: own(&self.public), service: own(&self.service) }
    }
}

/// Stands for the number of a worker's slot.
const WORKER: &str = "{worker}";
/// How long to wait for a worker without a supervisor: its default --hang-timeout and a margin.
const MOST_FOR_ORPHANS: Duration = Duration::from_secs(15);
/// Interval of checks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An address to listen on, the same for all workers or with `{worker}` in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenPattern(String);

impl FromStr for ListenPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenPattern, String> {
        let pattern = ListenPattern(text.to_owned());
        text.replace(WORKER, "0").parse::<ListenAddr>().map(|_| pattern)
    }
}

impl fmt::Display for ListenPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ListenPattern {
    /// The address for a slot.
    ///
    /// # Errors
    /// When it is not valid for that slot, such as a port with too many digits.
    pub fn for_slot(&self, slot: usize) -> io::Result<ListenAddr> {
        let text = self.0.replace(WORKER, &slot.to_string());
        text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn is_shared(&self) -> bool {
        !self.0.contains(WORKER)
    }
}

/// Listens for this many slots. Sockets passed by systemd (LISTEN_FDS) replace `public`, and all slots share them.
/// Otherwise each slot has a socket of its own, with SO_REUSEPORT if they share a port, which is closed to other
/// processes; a unix socket without `{worker}` is shared, too. `service` is where to listen for the application behind
/// the server.
///
/// # Errors
/// As [`Listener::bind`].
pub fn listen_all(
    public: &[ListenPattern],
    service: &[ListenPattern],
    slots: usize,
    options: BindOptions,
) -> io::Result<Vec<SlotListeners>> {
    let (public, service) = (inherit_or_bind(public, slots, options)?, bind_all(service, slots, options)?);
    let both = public.into_iter().zip(service);
    Ok(both.map(|(public, service)| SlotListeners { public, service }).collect())
}

fn inherit_or_bind(
    patterns: &[ListenPattern],
    slots: usize,
    options: BindOptions,
) -> io::Result<Vec<Vec<Rc<Listener>>>> {
    let mut by_slot = vec![Vec::new(); slots];
    let passed = sd_notify::listen_fds().map_or_else(|_| Vec::new(), Iterator::collect);
    for &number in &passed {
        share(&mut by_slot, inherited::take(number).and_then(Listener::adopt)?);
    }
    if passed.is_empty() { bind_all(patterns, slots, options) } else { Ok(by_slot) }
}

fn bind_all(patterns: &[ListenPattern], slots: usize, options: BindOptions) -> io::Result<Vec<Vec<Rc<Listener>>>> {
    let mut by_slot = vec![Vec::new(); slots];
    for pattern in patterns {
        let first = bind(&pattern.for_slot(0)?, options)?;
        let addr = first.local_addr()?;
        if pattern.is_shared() && matches!(addr, ListenAddr::Unix(_)) {
            share(&mut by_slot, first);
            continue;
        }
        let joins = pattern.is_shared() && slots > 1;
        if joins {
            // The port is ours now; the other sockets of this service may join.
            first.open_group()?;
        }
        let options = BindOptions { reuse_port: options.reuse_port || joins, ..options };
        by_slot[0].push(Rc::new(first));
        for (slot, own) in by_slot.iter_mut().enumerate().skip(1) {
            // All use the port that the kernel chose for the first.
            let addr = if pattern.is_shared() { addr.clone() } else { pattern.for_slot(slot)? };
            own.push(Rc::new(bind(&addr, options)?));
        }
    }
    Ok(by_slot)
}

/// Listens. A previous service may have left a hanging worker, which ends by itself: waits for that.
fn bind(addr: &ListenAddr, options: BindOptions) -> io::Result<Listener> {
    let deadline = Instant::now() + MOST_FOR_ORPHANS;
    loop {
        let error = match Listener::bind(addr, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            bound => return bound,
        };
        let held_by = listener::holder(addr);
        // A supervisor holds the listeners of all its workers, so it would be the one found.
        let is_orphan =
            held_by.as_ref().is_some_and(|holder| holder.arguments().get(1).is_some_and(|word| word == WORKER_COMMAND));
        if is_orphan && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        let advice = match (addr, held_by.is_some_and(|holder| holder.is_us())) {
            (_, true) => "give each address once",
            (ListenAddr::Tcp(_), _) => "choose another --listen, or share the port with --reuse-port",
            (ListenAddr::Unix(_), _) => "choose another --listen",
        };
        return Err(io::Error::new(error.kind(), format!("{error}; {advice}")));
    }
}

fn share(by_slot: &mut [Vec<Rc<Listener>>], listener: Listener) {
    let listener = Rc::new(listener);
    by_slot.iter_mut().for_each(|own| own.push(Rc::clone(&listener)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_listeners_for_both() -> io::Result<()> {
        let path = std::env::temp_dir().join(format!("percore-listeners-{}", std::process::id()));
        let shared = format!("unix:{}", path.display());
        let pattern = |text: &str| text.parse::<ListenPattern>().map_err(io::Error::other);
        let (public, service) = ([pattern("127.0.0.1:0")?], [pattern("127.0.0.1:0")?, pattern(&shared)?]);
        let slots = listen_all(&public, &service, 2, BindOptions { backlog: 8, unix_mode: None, reuse_port: false })?;
        let addrs = |listeners: &[Rc<Listener>]| {
            listeners.iter().map(|listener| listener.local_addr()).collect::<io::Result<Vec<_>>>()
        };
        for slot in &slots {
            assert_eq!((slot.public.len(), slot.service.len(), slot.all().count()), (1, 2, 3));
            assert_eq!(addrs(&slot.public)?, addrs(&slots[0].public)?);
            assert_eq!(addrs(&slot.service)?, addrs(&slots[0].service)?);
        }
        assert_ne!(addrs(&slots[0].public)?[0], addrs(&slots[0].service)?[0]);
        // Listeners that both have are not lent.
        let own = slots[0].without(&slots[1]);
        assert_eq!((own.public.len(), own.service.len()), (1, 1));
        assert_eq!(slots[0].without(&slots[0]).all().count(), 0);
        Ok(())
    }
}
