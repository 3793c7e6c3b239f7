//! A relay between clients and a server, which cuts all their connections at once, wherever they are.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Ended with the test.
pub struct Relay {
    pub addr: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepted: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
}

impl Relay {
    pub fn to(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let relay = Relay { addr, streams: Arc::default(), accepted: Arc::default(), is_down: Arc::default() };
        let (streams, accepted) = (Arc::clone(&relay.streams), Arc::clone(&relay.accepted));
        let is_down = Arc::clone(&relay.is_down);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_down.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(server) else { return };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                streams.lock().expect("streams").extend([copy(&client), copy(&upstream)]);
                accepted.fetch_add(1, Ordering::Relaxed);
                for (mut from, mut to) in [(copy(&client), copy(&upstream)), (upstream, client)] {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 700];
                        while let Ok(bytes @ 1..) = from.read(&mut buffer)
                            && to.write_all(&buffer[..bytes]).is_ok()
                        {}
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        relay
    }

    /// How many connections there were.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Cuts what there is.
    pub fn cut(&self) {
        for stream in self.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts what there is and lets nobody through, or lets all through again.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
        self.cut();
    }
}
