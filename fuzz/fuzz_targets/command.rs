//! Any text as commands of a client: nothing panics, what is read does not depend on white space around it, and what is passed on
//! is one line of the same JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::pubsub::centrifuge::command::{self, Command, Data, Method};
use percore::internal::pubsub::json::in_one_line;

fuzz_target!(|text: &str| {
    for line in text.split('\n') {
        let spaced = format!(" {line}\t");
        let read = command::read(line);
        assert_eq!(read, command::read(&spaced));
        if let Ok(Command { method: Some(Method::Publish { data: Data(Some(data)), .. }), id }) = read {
            assert!(id > 0);
            if let Ok(one) = in_one_line(data) {
                assert!(!one.contains(['\n', '\r']));
            }
        }
    }
});
