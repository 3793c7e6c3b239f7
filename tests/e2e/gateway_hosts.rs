//! Nodes of the gateway on hosts with a network each: what comes in at either reaches the clients of both, and a node that is
//! lost holds nobody up.

use crate::common::client::Response;
use crate::common::network::Network;
use crate::common::origin::{Gateway, Origin, outgoing, request};
use crate::common::{Client, TempDir, eventually, percore};
use std::time::{Duration, Instant};

const TOKEN: &str = "fifteen-and-more-characters";
/// How long a node that says nothing is waited for, and some more, as the machine is busy.
const WITHIN: Duration = Duration::from_secs(15);

struct Node<'a> {
    network: &'a Network,
    host: &'static str,
    gateway: Gateway,
    client: Client,
    id: String,
    origin: Option<Origin>,
}

impl<'a> Node<'a> {
    fn start(network: &'a Network, host: &'static str, addr: &str, folder: &TempDir) -> Node<'a> {
        network.add(host, addr);
        let origin = network.inside(host, || Origin::start(|_| 200));
        let (url, service) = (origin.url(), format!("{addr}:9465"));
        let file = |name: &str| folder.path(name).to_str().expect("text").to_owned();
        let (key, token) = (file("key"), file("token"));
        let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", &service];
        let cluster = ["--cluster-key-file", &key, "--service-token-file", &token];
        let gateway = Gateway::launch_by(network.on(host, &percore(&[&args[..], &cluster].concat())));
        let client = network.inside(host, || gateway.server.open());
        let id = origin.first_id();
        Node { network, host, gateway, client, id, origin: Some(origin) }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let headers = format!("Authorization: Bearer {TOKEN}\r\nAccept: application/json\r\n");
        self.network.inside(self.host, || request(self.gateway.service, method, path, &headers, body))
    }

    /// What becomes of a text that this node is given for both.
    fn send(&self, ids: &[&str], text: &str) -> Vec<String> {
        let response = self.ask("POST", "/sr", &outgoing(ids, text));
        let told: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
        let results = told["results"].as_array().expect("a list").iter();
        results.map(|one| one["result"].as_str().expect("a word").to_owned()).collect()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let origin = self.origin.take();
        self.network.inside(self.host, || drop(origin));
    }
}

#[test]
fn two_nodes_with_a_network_each() {
    let Some(network) = Network::new() else { return };
    let folder = TempDir::new();
    std::fs::write(folder.path("key"), "0123456789abcdef0123456789abcdef").expect("written");
    std::fs::write(folder.path("token"), TOKEN).expect("written");
    let mut one = Node::start(&network, "one", "10.77.0.2", &folder);
    let mut two = Node::start(&network, "two", "10.77.0.3", &folder);
    let (first, second) = (one.id.clone(), two.id.clone());
    let ids = [first.as_str(), second.as_str()];
    let path = |id: &str| format!("/connections/{}", id.replace('/', "%2F").replace('+', "%2B"));
    eventually("the network is up", || {
        one.ask("GET", &path(&second), "").status == 200 && two.ask("GET", &path(&first), "").status == 200
    });
    for (text, node) in [("from one", &one), ("from two", &two)] {
        assert_eq!(node.send(&ids, text), ["queued", "queued"], "{text}");
    }
    for client in [&mut one.client, &mut two.client] {
        assert_eq!([client.text(), client.text()], ["from one", "from two"]);
    }

    network.cable("two", "down");
    for turn in 0..5 {
        let began = Instant::now();
        assert_eq!(one.send(&ids, "is anybody there?"), ["queued", "unreachable"], "turn {turn}");
        assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        assert_eq!(one.client.text(), "is anybody there?");
    }
    // By now it is left out, so that nothing waits for it.
    let response = one.ask("GET", &path(&second), "");
    assert!(response.status == 503 && response.body.contains("unreachable"), "{}", response.body);
    assert_eq!(two.send(&ids, "alone"), ["unreachable", "queued"]);
    assert_eq!(two.client.text(), "alone");

    network.cable("two", "up");
    eventually("it is found again", || one.send(&ids[1..], "again") == ["queued"]);
    assert_eq!(two.client.text(), "again");
    eventually("both ways", || two.send(&ids[..1], "back") == ["queued"]);
    assert_eq!(one.client.text(), "back");
}
