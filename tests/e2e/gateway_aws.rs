//! `@connections` of `percore serve gateway` with AWS's SDK for JavaScript and signatures by the one for Python; and
//! AWS's limits.

use crate::common::client::{TEXT, frame};
use crate::common::origin::{Gateway, Origin, request};
use crate::common::{Client, TempDir, eventually, tool};
use crate::gateway_service::python;
use std::fs;
use std::process::Command;

const BINARY: u8 = 0x82;
/// A text frame that is not the last of its message, and the one that is.
const BEGIN: u8 = 0x01;
const END: u8 = 0x80;

const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = the secret of the tests\n";

/// Flags for a file of credentials.
fn credentials(folder: &TempDir) -> Vec<String> {
    let path = folder.path("credentials");
    fs::write(&path, CREDENTIALS).expect("written");
    vec!["--aws-credentials-file".into(), path.to_str().expect("text").into()]
}

fn with(gateway_flags: &[&str], more: &[String]) -> Vec<String> {
    gateway_flags.iter().map(|flag| (*flag).to_owned()).chain(more.iter().cloned()).collect()
}

fn start(origin: &Origin, flags: &[String]) -> Gateway {
    Gateway::start(origin, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// So many clients with the names of their connections, as functions are told them.
fn clients(gateway: &Gateway, origin: &Origin, number: usize) -> Vec<(Client, String)> {
    let clients = (0..number).map(|place| {
        let client = gateway.server.open_with("User-Agent: tester/1\r\n");
        eventually("it is known", || origin.heard().len() == place + 1);
        let id = origin.heard()[place].json()["requestContext"]["connectionId"].as_str().expect("an id").to_owned();
        (client, id)
    });
    clients.collect()
}

/// With signatures that are checked, and with such that nobody looks at.
#[test]
fn the_sdk_for_javascript_talks_to_connections() {
    let folder = TempDir::new();
    let flags = ["--events", "aws", "--max-message", "64K", "--max-backlog", "1K", "--slow-consumer", "drop"];
    for flags in [with(&flags, &credentials(&folder)), with(&flags, &[])] {
        let origin = Origin::start(|_| 200);
        let gateway = start(&origin, &flags);
        let mut clients = clients(&gateway, &origin, 3);
        let mut command = Command::new("node");
        command.arg(format!("{}/tests/clients/connections.js", env!("CARGO_MANIFEST_DIR"))).arg(tool("aws"));
        command.arg(format!("http://{}", gateway.service)).args(clients.iter().map(|(_, id)| id));
        let output = command.output().expect("node starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let first = &mut clients[0].0;
        for _ in 0..2 {
            assert_eq!(first.text(), "text");
            assert_eq!(first.frame().payload, [0xff, 0x00]);
        }
        assert_eq!(clients[1].0.closed().0, 1000);
    }
}

#[test]
fn signatures_are_checked_when_there_are_keys() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let gateway = start(&origin, &with(&["--events", "aws"], &credentials(&folder)));
    let mut clients = clients(&gateway, &origin, 1);
    let (client, id) = &mut clients[0];
    let endpoint = format!("http://{}", gateway.service);
    assert_eq!(python("signed.py", &[&endpoint, id, "AKIDTEST", "the secret of the tests"], "").trim(), "good");
    assert_eq!(client.text(), "grün");
    for (headers, kind) in [
        ("", "MissingAuthenticationTokenException"),
        ("Authorization: Bearer x\r\n", "MissingAuthenticationTokenException"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=x\r\n", "IncompleteSignatureException"),
    ] {
        let response = request(gateway.service, "POST", &format!("/@connections/{id}"), headers, "x");
        assert_eq!((response.status, response.header("x-amzn-errortype")), (403, Some(kind)), "{headers}");
        assert!(response.body.contains("\"message\":"), "{}", response.body);
    }
    assert_eq!(
        request(gateway.service, "POST", &format!("/connections/{id}"), "", "x").status,
        200,
        "REST has no keys"
    );
}

/// On a listener with a token a signature takes its place for `@connections`, and only there.
#[test]
fn a_signature_stands_for_the_token() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let token = folder.path("token");
    fs::write(&token, "secret").expect("written");
    let flags = ["--events", "aws", "--service-token-file", token.to_str().expect("text")];
    let gateway = start(&origin, &with(&flags, &credentials(&folder)));
    let clients = clients(&gateway, &origin, 1);
    let id = &clients[0].1;
    let endpoint = format!("http://{}", gateway.service);
    assert_eq!(python("signed.py", &[&endpoint, id, "AKIDTEST", "the secret of the tests"], "").trim(), "good");
    let (bearer, signed) = ("Authorization: Bearer secret\r\n", "Authorization: AWS4-HMAC-SHA256 Credential=x\r\n");
    for (path, headers, status) in [
        (format!("/@connections/{id}"), "", 401),
        (format!("/@connections/{id}"), "Authorization: Bearer wrong\r\n", 401),
        (format!("/@connections/{id}"), bearer, 200),
        (format!("/@connections/{id}"), signed, 403),
        (format!("/connections/{id}"), signed, 401),
        ("/sr".to_owned(), signed, 401),
    ] {
        assert_eq!(request(gateway.service, "GET", &path, headers, "").status, status, "{path} {headers}");
    }
}

#[test]
fn the_limits_of_aws_on_messages() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &["--events", "aws", "--aws-limits"]);
    let (frame_bytes, message_bytes) = (32 << 10, 128 << 10);
    let mut good = gateway.server.open();
    good.send(frame(TEXT, &vec![b'x'; frame_bytes]));
    good.send(frame(BEGIN, &vec![b'x'; frame_bytes]));
    for first in [0, 0, END] {
        good.send(frame(first, &vec![b'x'; frame_bytes]));
    }
    eventually("both messages", || origin.heard().len() == 3);
    let length = |place: usize| origin.heard()[place].json()["body"].as_str().map(str::len);
    assert_eq!((length(1), length(2)), (Some(frame_bytes), Some(message_bytes)));
    let mut long_frame = gateway.server.open();
    long_frame.send(frame(TEXT, &vec![b'x'; frame_bytes + 1]));
    assert_eq!(long_frame.closed().0, 1009);
    let mut long_message = gateway.server.open();
    long_message.send(frame(BEGIN, &vec![b'x'; frame_bytes]));
    for first in [0, 0, 0, END] {
        long_message.send(frame(first, &vec![b'x'; frame_bytes]));
    }
    assert_eq!(long_message.closed().0, 1009);
    let mut binary = gateway.server.open();
    binary.send(frame(BINARY, b"x"));
    assert_eq!(binary.closed().0, 1003);
    let id = origin.heard()[0].json()["requestContext"]["connectionId"].as_str().expect("an id").to_owned();
    let path = format!("/prod/@connections/{id}");
    let post = |bytes| request(gateway.service, "POST", &path, "", &"x".repeat(bytes)).status;
    assert_eq!((post(message_bytes), post(message_bytes + 1)), (200, 413));
}
