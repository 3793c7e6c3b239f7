//! A history that several workers have in common, and that outlives them: the keeper, its files, and what becomes of publications when
//! processes are killed.

use crate::common::channels::{Hub, command};
use crate::common::followers::{Account, Follower, post};
use crate::common::redis::{Redis, bridge};
use crate::common::{Server, TempDir, eventually, process, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

const LAST: u64 = 1_000_000_000;
const WORKERS: [&str; 6] = ["--workers", "2", "--admin", "127.0.0.1:0", "--history-size", "20000"];

fn file(folder: &TempDir, text: &str) -> String {
    let path = folder.path("channels.toml");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

fn hub(folder: &TempDir, flags: &[&str]) -> Hub {
    let config = file(folder, "[limits]\nrecovery_publications = 10000\n");
    Hub::launch(command(&[&WORKERS[..], &["--config", &config], flags].concat()))
}

/// The processes of a service: the keeper, and the workers.
fn parts(hub: &Hub) -> (Option<u32>, Vec<u32>) {
    let children = process::children(hub.server.child().id());
    let is_keeper = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"keeper-of")
    };
    let keeper = children.iter().copied().find(is_keeper);
    (keeper, children.into_iter().filter(|pid| Some(*pid) != keeper).collect())
}

fn keeper_of(hub: &Hub) -> u32 {
    let mut keeper = None;
    eventually("a keeper", || {
        keeper = parts(hub).0;
        keeper.is_some() && hub.server.metric("percore_history_keeper_up") == 1
    });
    keeper.expect("just found")
}

/// Clients enough for some to be with each worker.
fn followers(hub: &Hub, count: usize) -> Vec<Follower> {
    let followers: Vec<Follower> = (0..count).map(|_| Follower::of("numbers", hub.server.addr(), LAST)).collect();
    eventually("all to subscribe", || followers.iter().all(|follower| follower.subscribed.load(Relaxed) > 0));
    followers
}

/// Publishes the last number until it is accepted, and looks at what everybody heard. Returns how often clients were told that they
/// may have missed something.
fn finish(service: std::net::SocketAddr, account: &mut Account, followers: Vec<Follower>) -> u64 {
    let mut last = Account::default();
    eventually("the last number to be accepted", || last.publish(service, "numbers", LAST));
    account.accepted.insert(LAST);
    let heard: Vec<_> = followers.into_iter().map(Follower::heard).collect();
    heard.iter().for_each(|heard| account.check(heard));
    heard.iter().map(|heard| heard.lost).sum()
}

#[test]
fn workers_have_one_history() {
    let folder = TempDir::new();
    let hub = hub(&folder, &[]);
    let mut clients: Vec<_> = (0..6).map(|_| hub.client()).collect();
    let first: Vec<Value> = clients.iter_mut().map(|client| client.subscribe("news", &json!({}))).collect();
    assert!(first.iter().all(|result| result["offset"] == 0 && result["epoch"] == first[0]["epoch"]), "{first:?}");
    eventually("both workers to have clients", || {
        (0..2).all(|worker| hub.server.metric(&format!("percore_channels_clients{{worker=\"{worker}\"}}")) > 0)
    });
    for number in 1..=20 {
        let result = hub.result("publish", &json!({"channel": "news", "data": number}));
        assert_eq!(result, json!({"offset": number, "epoch": first[0]["epoch"]}));
    }
    // Those of clients come in the same order.
    for (number, client) in clients.iter_mut().enumerate() {
        client.order(&json!({"publish": {"channel": "news", "data": 100 + number}}));
    }
    for client in &mut clients {
        let (mut pushes, mut replied) = (Vec::new(), false);
        while pushes.len() < 26 || !replied {
            let line = client.hear();
            match line.get("push") {
                Some(push) => pushes.push(push["pub"]["offset"].as_u64().expect("an offset")),
                None => replied = line.get("publish").is_some(),
            }
        }
        assert_eq!(pushes, (1..=26).collect::<Vec<u64>>());
    }
    for _ in 0..8 {
        let history = hub.result("history", &json!({"channel": "news", "limit": -1}));
        assert_eq!((&history["offset"], history["publications"].as_array().map(Vec::len)), (&json!(26), Some(26)));
    }
    // A key is known to all workers.
    let keyed = json!({"channel": "news", "data": 1, "idempotency_key": "k"});
    let results: Vec<Value> = (0..8).map(|_| hub.result("publish", &keyed)).collect();
    assert!(results.iter().all(|result| result["offset"] == 27), "{results:?}");
    assert_eq!(hub.result("history_remove", &json!({"channel": "news"})), json!({}));
    for _ in 0..4 {
        let history = hub.result("history", &json!({"channel": "news", "limit": -1}));
        assert_eq!((&history["offset"], &history["publications"]), (&json!(27), &json!([])));
    }
    let batch = json!({"commands": [
        {"publish": {"channel": "news", "data": 1}},
        {"broadcast": {"channels": ["a", "no:such"], "data": 1}},
        {"publish": {"channel": "no:such", "data": 1}}
    ]});
    let replies = hub.result("batch", &batch);
    assert_eq!(replies["replies"][0]["publish"]["offset"], 28, "{replies}");
    assert_eq!(replies["replies"][1]["broadcast"]["responses"][0]["result"]["offset"], 1, "{replies}");
    assert_eq!(replies["replies"][1]["broadcast"]["responses"][1]["error"]["code"], 102, "{replies}");
    assert_eq!(replies["replies"][2]["error"]["code"], 102, "{replies}");
    eventually("that nothing waits", || {
        (0..2).all(|worker| hub.server.metric(&format!("percore_history_pending{{worker=\"{worker}\"}}")) == 0)
    });
}

/// More at once than a ring of the bus holds, in both directions: what was lapped is read from the files, and nobody is sent away.
#[test]
fn more_than_the_bus_holds_is_not_lost() {
    const COUNT: usize = 400;
    let hub = Hub::launch(command(&[&WORKERS[..], &["--bus-size", "64K"]].concat()));
    let mut clients: Vec<_> = (0..4).map(|_| hub.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.subscribe("news", &json!({}))));
    let data = "x".repeat(1000);
    let result = hub.result("broadcast", &json!({"channels": vec!["news"; COUNT], "data": data}));
    let offsets: Vec<u64> = result["responses"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|response| response["result"]["offset"].as_u64().unwrap_or_else(|| panic!("{response}")))
        .collect();
    assert_eq!(offsets, (1..=COUNT as u64).collect::<Vec<_>>());
    for client in &mut clients {
        for offset in 1..=COUNT {
            assert_eq!(client.push("pub", "news")["offset"], offset);
        }
    }
    let refused = hub.call("publish", &json!({"channel": "news", "data": "x".repeat(20_000)}));
    assert_eq!(refused.1["error"]["code"], 106, "longer than a quarter of the ring: {refused:?}");
}

#[test]
fn killed_keepers_lose_nothing() {
    let folder = TempDir::new();
    let hub = hub(&folder, &[]);
    let followers = followers(&hub, 6);
    let (mut account, mut number) = (Account::default(), 0);
    for _ in 0..8 {
        let keeper = keeper_of(&hub);
        for _ in 0..15 {
            number += 1;
            account.publish(hub.service, "numbers", number);
        }
        process::signal(keeper, "KILL");
        for _ in 0..15 {
            number += 1;
            account.publish(hub.service, "numbers", number);
        }
        eventually("another keeper", || parts(&hub).0.is_some_and(|pid| pid != keeper));
    }
    assert_eq!(finish(hub.service, &mut account, followers), 0, "nobody had to be told of a loss");
    assert!(account.unknown.is_empty() && account.accepted.len() > 100, "{account:?}");
}

#[test]
fn killed_workers_lose_nothing_that_was_accepted() {
    let folder = TempDir::new();
    let hub = hub(&folder, &["--history-dir", folder.path("history").to_str().expect("text")]);
    let followers = followers(&hub, 6);
    let (mut account, mut number) = (Account::default(), 0);
    for round in 0..6 {
        let workers = parts(&hub).1;
        for _ in 0..15 {
            number += 1;
            account.publish(hub.service, "numbers", number);
        }
        process::signal(workers[round % workers.len()], "KILL");
        for _ in 0..15 {
            number += 1;
            account.publish(hub.service, "numbers", number);
        }
        eventually("another worker", || {
            let now = parts(&hub).1;
            now.len() == 2 && now != workers
        });
    }
    assert_eq!(finish(hub.service, &mut account, followers), 0, "nobody had to be told of a loss");
    assert!(account.failed.is_empty() && account.accepted.len() > 100, "{account:?}");
}

#[test]
fn killed_supervisors_lose_nothing_that_was_accepted() {
    let folder = TempDir::new();
    let history = folder.path("history").to_str().expect("text").to_owned();
    let flags = ["--history-dir", &history, "--drain-timeout", "1s"];
    let mut service = hub(&folder, &flags);
    let followers = followers(&service, 4);
    let (mut account, mut number) = (Account::default(), 0);
    for _ in 0..3 {
        for _ in 0..20 {
            number += 1;
            account.publish(service.service, "numbers", number);
        }
        service.server.signal("KILL");
        // Its workers go on for a moment.
        for _ in 0..5 {
            number += 1;
            account.publish(service.service, "numbers", number);
        }
        service = hub(&folder, &flags);
        followers.iter().for_each(|follower| follower.move_to(service.server.addr()));
        eventually("the history to be kept again", || {
            number += 1;
            account.publish(service.service, "numbers", number)
        });
    }
    assert_eq!(finish(service.service, &mut account, followers), 0, "nobody had to be told of a loss");
    assert!(account.accepted.len() > 50, "{account:?}");
}

#[test]
fn a_reload_loses_nothing() {
    let folder = TempDir::new();
    let hub = hub(&folder, &["--drain-timeout", "2s"]);
    let followers = followers(&hub, 4);
    let (mut account, mut number) = (Account::default(), 0);
    for round in 1..=2 {
        hub.server.signal("HUP");
        eventually("the reload", || {
            number += 1;
            account.publish(hub.service, "numbers", number);
            hub.server.count_log("took over") == round
        });
    }
    assert_eq!(finish(hub.service, &mut account, followers), 0, "nobody had to be told of a loss");
    assert!(account.failed.is_empty(), "{account:?}");
}

/// While the keeper stands still, what is published waits for a second, and then fails and never comes.
#[test]
fn a_keeper_that_stands_still_makes_nothing_half_done() {
    let folder = TempDir::new();
    let hub = hub(&folder, &[]);
    let followers = followers(&hub, 4);
    let mut account = Account::default();
    assert!(account.publish(hub.service, "numbers", 1));
    let keeper = keeper_of(&hub);
    process::signal(keeper, "STOP");
    let mut ann = hub.client();
    assert_eq!(ann.error(&json!({"publish": {"channel": "numbers", "data": 5}})), 100);
    account.failed.insert(5);
    for number in 2..=3 {
        assert!(!account.publish(hub.service, "numbers", number));
    }
    let params = json!({"channel": "numbers", "data": 4});
    assert_eq!(hub.call_with("publish", &params, "X-Centrifugo-Error-Mode: transport\r\n").0, 503);
    account.failed.insert(4);
    // What has no history does not wait, and what is known is told.
    let result = hub.result("publish", &json!({"channel": "numbers", "data": 9, "skip_history": true}));
    assert_eq!(result, json!({}));
    assert_eq!(hub.result("history", &json!({"channel": "numbers", "limit": 0}))["offset"], 1);
    eventually("the count", || hub.server.metric("percore_history_failed_total") >= 4);
    process::signal(keeper, "CONT");
    let mut number = 10;
    eventually("the keeper to go on", || {
        number += 1;
        account.publish(hub.service, "numbers", number)
    });
    drop(followers);
    let history = hub.result("history", &json!({"channel": "numbers", "limit": -1}));
    let kept: Vec<u64> =
        history["publications"].as_array().expect("a list").iter().filter_map(|one| one["data"].as_u64()).collect();
    let mut accepted: Vec<u64> = account.accepted.iter().copied().collect();
    accepted.sort_unstable();
    assert_eq!(kept, accepted);
}

/// The files of a history, the oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|digits| digits.len() == 16);
    let mut files: Vec<PathBuf> = names.filter(is_log).collect();
    files.sort();
    files
}

fn recover(hub: &Hub, from: &Value) -> Value {
    let position = json!({"recover": true, "offset": from["offset"], "epoch": from["epoch"]});
    hub.client().subscribe("news", &position)
}

#[test]
fn a_history_in_files_outlives_a_restart() {
    let folder = TempDir::new();
    let history = folder.path("history");
    let flags = ["--history-size", "10", "--history-dir", history.to_str().expect("text")];
    for (number, more) in
        [&["--history-sync", "always"][..], &["--workers", "2", "--admin", "127.0.0.1:0"], &[]].iter().enumerate()
    {
        let number = number as u64;
        let hub = Hub::start(&[&flags[..], more].concat());
        let before = hub.result("history", &json!({"channel": "news", "limit": -1}));
        assert_eq!(before["offset"], 2 * number, "{before}");
        let first = hub.result("publish", &json!({"channel": "news", "data": 2 * number + 1}));
        if number > 0 {
            assert_eq!(first["epoch"], before["epoch"]);
            let result = recover(&hub, &json!({"offset": 1, "epoch": before["epoch"]}));
            let missed = result["publications"].as_array().expect("what was missed").len() as u64;
            assert_eq!((&result["recovered"], missed), (&json!(true), 2 * number));
        }
        assert_eq!(
            hub.result("publish", &json!({"channel": "news", "data": 2 * number + 2}))["offset"],
            2 * number + 2
        );
        if number == 1 {
            hub.server.signal("KILL");
            assert_eq!(hub.server.wait().0, None);
        } else {
            assert_eq!(hub.server.stop().0, Some(0));
        }
    }
}

#[test]
fn damage_is_found_and_clients_are_told() {
    for (number, damage) in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1),
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| bytes.truncate(10),
        |bytes: &mut Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        |bytes: &mut Vec<u8>| bytes.clear(),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = TempDir::new();
        let history = folder.path("history");
        let flags = ["--history-size", "10", "--history-dir", history.to_str().expect("text")];
        let hub = Hub::start(&flags);
        let mut last = Value::Null;
        for data in 1..=8 {
            last = hub.result("publish", &json!({"channel": "news", "data": data}));
        }
        assert_eq!(hub.server.stop().0, Some(0));
        let path = files(&history).pop().expect("a file");
        let mut bytes = std::fs::read(&path).expect("it is there");
        damage(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        let hub = Hub::start(&flags);
        let line = hub.server.wait_for_log("new epochs");
        assert!(line.contains(" WARN the history in "), "{number}: {line}");
        // As soon as it is known to those who serve.
        eventually("the new epoch", || {
            let top = hub.call("history", &json!({"channel": "news", "limit": 0})).1;
            top["result"]["epoch"].as_str().is_some_and(|epoch| last["epoch"] != epoch)
        });
        let result = recover(&hub, &last);
        assert_ne!(result["recovered"], true, "{number}: {result}");
        // What is whole is kept, and is the beginning.
        let kept = hub.result("history", &json!({"channel": "news", "limit": -1}));
        let kept: Vec<u64> =
            kept["publications"].as_array().expect("a list").iter().filter_map(|one| one["data"].as_u64()).collect();
        assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>(), "{number}");
        assert!(number != 0 || kept.len() == 8, "only the keeper's last word was cut");
        let next = hub.result("publish", &json!({"channel": "news", "data": 9}));
        assert_eq!(next["offset"], kept.len() + 1, "{number}");
    }
}

#[test]
fn a_full_disk_fails_what_is_published_until_there_is_room() {
    let folder = TempDir::new();
    let history = folder.path("history");
    let flags = ["--history-dir", history.to_str().expect("text"), "--history-size", "1000", "--admin", "127.0.0.1:0"];
    let hub = Hub::start(&flags);
    let pid = hub.server.child().id().to_string();
    let limit = |bytes: &str| {
        let limited = std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status();
        assert!(limited.expect("it runs").success());
    };
    limit("40960:unlimited");
    let data = "x".repeat(2000);
    let publish = || hub.call("publish", &json!({"channel": "news", "data": data})).1;
    let (mut answer, mut accepted) = (publish(), 0);
    while answer.get("result").is_some() && accepted < 100 {
        accepted += 1;
        answer = publish();
    }
    assert_eq!(answer["error"]["code"], 100, "{answer}");
    assert!((10..40).contains(&accepted), "{accepted}");
    hub.server.wait_for_log("cannot write the history in ");
    eventually("the count", || hub.server.metric("percore_history_write_errors_total") > 0);
    hub.result("publish", &json!({"channel": "news", "data": 1, "skip_history": true}));
    assert_eq!(hub.result("history", &json!({"channel": "news", "limit": 0}))["offset"], accepted);
    limit("unlimited");
    eventually("room", || publish().get("result").is_some());
    let top = hub.result("history", &json!({"channel": "news", "limit": 0}));
    assert_eq!(top["offset"], accepted + 1);
    assert_eq!(hub.server.stop().0, Some(0));
    let hub = Hub::start(&flags);
    let again = hub.result("history", &json!({"channel": "news", "limit": 0}));
    assert_eq!(again, top, "nothing half done was left");
}

/// Old files go; the history of a channel that is seldom published on stays.
#[test]
fn files_take_a_bounded_space() {
    let folder = TempDir::new();
    let history = folder.path("history");
    let text = history.to_str().expect("text");
    let flags = ["--history-dir", text, "--history-size", "20", "--history-bytes", "1M"];
    let hub = Hub::start(&flags);
    let seldom = hub.result("publish", &json!({"channel": "seldom", "data": "still here"}));
    let data = "x".repeat(5000);
    let channels: Vec<String> = (0..5).map(|number| format!("often{number}")).collect();
    for _ in 0..200 {
        hub.result("broadcast", &json!({"channels": channels, "data": data}));
    }
    let bytes = || files(&history).iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum::<u64>();
    eventually("old files to go", || bytes() < 3 << 20);
    hub.server.signal("KILL");
    assert_eq!(hub.server.wait().0, None);
    let hub = Hub::start(&flags);
    let kept = hub.result("history", &json!({"channel": "seldom", "limit": -1}));
    assert_eq!((&kept["epoch"], &kept["publications"][0]["data"]), (&seldom["epoch"], &json!("still here")));
    let often = hub.result("history", &json!({"channel": "often4", "limit": -1}));
    let count = often["publications"].as_array().map(Vec::len);
    assert_eq!((&often["offset"], count), (&json!(200), Some(20)));
}

#[test]
fn servers_on_a_bus_share_a_keeper() {
    let folder = TempDir::new();
    let bus = folder.path("bus").to_str().expect("text").to_owned();
    let flags = ["--history-size", "10", "--bus", &bus];
    let [first, second] = [Hub::start(&flags), Hub::start(&flags)];
    for number in 1..=6u64 {
        let hub = if number % 2 == 0 { &first } else { &second };
        assert_eq!(hub.result("publish", &json!({"channel": "news", "data": number}))["offset"], number);
    }
    // The other's keeper stands by.
    first.server.signal("KILL");
    assert_eq!(first.server.wait().0, None);
    eventually("the other keeper", || {
        post(second.service, "publish", &json!({"channel": "news", "data": 7}))
            .is_ok_and(|answer| answer["result"]["offset"].as_u64().is_some_and(|offset| offset >= 7))
    });
    let kept = second.result("history", &json!({"channel": "news", "limit": 6}));
    assert_eq!(kept["publications"][5]["data"], 6, "{kept}");
}

/// What is published on one host is numbered by each for itself.
#[test]
fn hosts_have_histories_of_their_own() {
    let redis = Redis::start(&[]);
    let folders = [TempDir::new(), TempDir::new()];
    let hubs = folders.each_ref().map(|folder| {
        let bus = folder.path("bus").to_str().expect("text").to_owned();
        Hub::start(&["--history-size", "10", "--bus", &bus])
    });
    let bridges = folders.each_ref().map(|folder| Server::launch(bridge(folder, &redis.url(), &[]), 0));
    bridges.iter().for_each(|bridge| drop(bridge.wait_for_log("connected to Redis")));
    let mut clients = hubs.each_ref().map(Hub::client);
    let first = clients.each_mut().map(|client| client.subscribe("news", &json!({})));
    eventually("both keepers to be heard of", || redis.subscribers("percore-history") == 2);
    for number in 1..=3u64 {
        let from = &hubs[number as usize % 2];
        assert_eq!(from.result("publish", &json!({"channel": "news", "data": number}))["offset"], number);
        for client in &mut clients {
            assert_eq!(client.push("pub", "news"), json!({"data": number, "offset": number}));
        }
    }
    assert_ne!(first[0]["epoch"], first[1]["epoch"]);
    let elsewhere = recover(&hubs[1], &json!({"offset": 1, "epoch": first[0]["epoch"]}));
    assert_eq!((&elsewhere["recovered"], &elsewhere["epoch"]), (&Value::Null, &first[1]["epoch"]));
}

#[test]
fn flags_of_the_history_are_checked() {
    for (flags, hint) in [
        (&["--history-dir", "/tmp/percore-none"][..], "no channel has a history"),
        (&["--history-size", "1", "--workers", "2", "--bus", "off"], "leave it out"),
        (&["--history-size", "1", "--history-sync", "sometimes"], "always, interval, never"),
    ] {
        let (code, _, error) = run(command(flags));
        assert!(code == 2 && error.contains(hint), "{flags:?}: {error}");
    }
    let (code, _, error) = run(command(&["--history-size", "1", "--history-dir", "/proc/percore-none"]));
    assert!(code == 1 && error.contains("history in /proc/percore-none"), "{error}");
}
