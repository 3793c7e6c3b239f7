//! The client's address through a real nginx, end to end: `--trusted-proxy` and `--proxy-protocol`.

use crate::common::nginx::{Nginx, instances};
use crate::common::{Server, TempDir, percore_after};

/// Upgrades through nginx from an address of the client's own: what the log says of whoever connected, and the address.
fn logged(server: &Server, nginx: &Nginx) -> (String, std::net::SocketAddr) {
    let mut client = nginx.connect_from_own_ip();
    // What a client writes itself counts for nothing.
    client.upgrade("X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n");
    let line = server.wait_for_log("connection opened: ");
    let said = line.split_once("connection opened: ").expect("just seen").1;
    (said.split(' ').next().unwrap_or_default().to_owned(), client.addr())
}

#[test]
fn by_tcp() {
    for (trusted, is_believed) in [("127.0.0.1", true), ("192.0.2.0/24", false)] {
        let server = Server::start(&["--trusted-proxy", trusted]);
        let nginx = Nginx::before(server.addr(), server.addr());
        let (said, client) = logged(&server, &nginx);
        assert_eq!(said.split(':').next() == Some(&client.ip().to_string()), is_believed, "{trusted}: {said}");
    }
}

#[test]
fn by_a_unix_socket() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("percore.sock").display());
    let args = ["serve", "echo", "--listen", &listen, "--trusted-proxy", "unix"];
    let server = Server::launch(percore_after("umask 0", &args), 1);
    let nginx = Nginx::start("unix.conf", &[("/run/percore/", folder.path("").display().to_string())]);
    let (said, client) = logged(&server, &nginx);
    assert_eq!(said.split(':').next(), Some(&client.ip().to_string()[..]), "{said}");
}

#[test]
fn by_the_proxy_protocol() {
    let server = Server::start(&["--proxy-protocol", "--trusted-proxy", "127.0.0.1"]);
    let nginx = Nginx::start("proxy-protocol.conf", &instances(server.addr(), server.addr()));
    let (said, client) = logged(&server, &nginx);
    assert_eq!(said, client.to_string());
}
