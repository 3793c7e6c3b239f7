//! `percore serve channels`: its processes, and the keeper among them or beside them.

use super::Failure;
use super::bus_flags::BusPlace;
use super::channels::ChannelsFlags;
use super::keeper::{KeeperThread, check_files, wait_for_files};
use super::serve::{Part, failed, serve_app, serve_prepared, supervise_with, supervises};
use crate::keeper::KeeperApp;
use crate::os::bus::PrivateBus;
use crate::reactor::{Waker, seed};
use std::sync::Arc;

/// Serves, or has others serve.
pub(super) fn serve_channels(flags: ChannelsFlags, part: Part) -> Result<(), Failure> {
    let (plan, mut checked) = flags.check()?;
    // Where they are in the folder of the bus, that is looked at as well.
    if let Some(history) = plan.history().filter(|_| part == Part::Main)
        && let Some(folder) = history.own_folder()
    {
        check_files(&history.setup(folder))?;
    }
    if supervises(&checked, part) {
        return supervise_with(checked, true, plan.history().is_some());
    }
    let (mut private, mut keeper, mut beside) = (None, None, None);
    if let Some(history) = plan.history().filter(|_| part != Part::Worker) {
        // One of its own, for a process that is alone but has a keeper.
        if !matches!(checked.bus, BusPlace::Folder(_)) {
            let bus = private.insert(PrivateBus::create(checked.bus_options).map_err(failed)?);
            checked.bus = BusPlace::Folder(bus.path().to_owned());
        }
        if let BusPlace::Folder(path) = &checked.bus {
            let setup = history.setup(path);
            if part == Part::Keeper {
                return serve_app(KeeperApp::new(setup, Arc::default()).map_err(failed)?, checked, part);
            }
            let bus = (path.clone(), checked.bus_options);
            let thread = KeeperThread::start(setup, bus, checked.log.like(), checked.options.log_format);
            beside = Some(Arc::clone(&keeper.insert(thread.map_err(failed)?).counters));
        }
    }
    let path = if let BusPlace::Folder(path) = &checked.bus { Some(path.clone()) } else { None };
    let waker = Waker::default();
    let app = plan.start(seed().map_err(failed)?, path.as_deref(), &waker).map_err(failed)?;
    let served = serve_prepared(app, checked, part, beside, |mut server, _, _| {
        wait_for_files(|| server.app_mut().load_history());
        Ok(server.waker(&waker))
    });
    if let Some(keeper) = keeper {
        keeper.stop();
    }
    drop(private);
    served
}
