//! A real nginx with the files of `proxy/`, of which only what must differ in a test is replaced: addresses, folders
//! and, where a test names them, limits and timers.

use super::{Client, PATIENCE, TempDir, eventually, run, send_signal};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

/// Two addresses of the loopback that no other process uses, so that a port found free there stays free.
pub fn own_ips() -> [Ipv4Addr; 2] {
    // A process number has at most 22 bits.
    [0, 1].map(|last| Ipv4Addr::from(0x7f80_0000 | std::process::id() << 1 | last))
}

/// An address that nobody uses and that this gives to nobody else.
pub fn free_addr() -> SocketAddr {
    static GIVEN: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().expect("addresses");
    let probe = || TcpListener::bind((own_ips()[0], 0)).and_then(|listener| listener.local_addr()).expect("a port");
    let addr = std::iter::repeat_with(probe).find(|addr| !given.contains(addr)).expect("endless");
    given.push(addr);
    addr
}

/// Files of `proxy/`, rendered into a folder of their own.
pub struct Rendered {
    folder: TempDir,
    conf: PathBuf,
    /// What `listen 8080` became.
    pub addr: SocketAddr,
    /// What `listen 8443` became.
    pub tls_addr: SocketAddr,
}

impl Rendered {
    /// The configuration `name`, with each of `replacements` made wherever it applies; each must apply somewhere.
    pub fn new(name: &str, replacements: &[(&str, String)]) -> Rendered {
        let folder = TempDir::new();
        let conf = folder.path(name);
        let rendered = Rendered { folder, conf, addr: free_addr(), tls_addr: free_addr() };
        rendered.write(replacements);
        rendered
    }

    /// Writes the files again, with other replacements.
    pub fn write(&self, replacements: &[(&str, String)]) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy");
        let name = self.conf.file_name().expect("a file");
        let mut files = vec![(sources.join(name), self.conf.clone())];
        fs::create_dir_all(self.folder.path("include")).expect("a folder");
        for entry in fs::read_dir(sources.join("include")).expect("proxy/include") {
            let entry = entry.expect("proxy/include");
            files.push((entry.path(), self.folder.path("include").join(entry.file_name())));
        }
        let mut unused: Vec<&str> = replacements.iter().map(|(from, _)| *from).collect();
        for (from, to) in files {
            let mut text = fs::read_to_string(&from).expect("a configuration");
            for (from, to) in replacements {
                unused.retain(|unused| unused != from || !text.contains(from));
                text = text.replace(from, to);
            }
            for (from, to) in self.own_replacements() {
                text = text.replace(from, &to);
            }
            fs::write(to, text).expect("a configuration is written");
        }
        assert!(unused.is_empty(), "no file of proxy/ contains {unused:?}");
    }

    /// What differs in every test.
    fn own_replacements(&self) -> [(&'static str, String); 6] {
        let folder = self.folder.path("");
        // Debian's nginx would use folders below /var/lib, also for what is never stored.
        let temp_paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp_paths = temp_paths.map(|kind| format!("    {kind}_temp_path {}tmp-{kind};\n", folder.display()));
        [
            ("/var/log/nginx/", folder.display().to_string()),
            ("http {\n", format!("http {{\n{}", temp_paths.concat())),
            ("listen 8080", format!("listen {}", self.addr)),
            ("listen 8443", format!("listen {}", self.tls_addr)),
            // All clients of a test have one address.
            ("limit_conn connections 100", "limit_conn connections 10000".to_owned()),
            ("rate=20r/s", "rate=10000r/s".to_owned()),
        ]
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// nginx with this configuration, and further arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let modules = if self.conf.ends_with("proxy-protocol.conf") {
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so; "
        } else {
            ""
        };
        let mut command = Command::new("nginx");
        // Debian has it where only the administrator's PATH leads.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(self.folder.path("")).arg("-c").arg(&self.conf).args(["-e", "stderr", "-g"]);
        command.arg(format!("{modules}daemon off; pid {};", self.folder.path("nginx.pid").display()));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What `nginx -t` says.
    pub fn check(&self) -> (i32, String) {
        let mut command = self.command(&["-t"]);
        command.stderr(Stdio::piped());
        let (code, _, stderr) = run(command);
        (code, stderr)
    }

    /// Starts nginx.
    pub fn start(self) -> Nginx {
        let child = self.command(&[]).spawn().expect("nginx starts (tests/run installs it)");
        let mut nginx = Nginx { child, files: self };
        eventually("nginx", || {
            let ended = nginx.child.try_wait().expect("own child");
            assert!(ended.is_none(), "nginx ended: {ended:?}\n{}", nginx.error_log());
            TcpStream::connect(nginx.files.addr).is_ok()
        });
        nginx
    }
}

/// A running nginx. Dropping it ends it with all its workers.
pub struct Nginx {
    child: Child,
    /// Its configuration.
    pub files: Rendered,
}

impl Nginx {
    /// nginx with the configuration `name`.
    pub fn start(name: &str, replacements: &[(&str, String)]) -> Nginx {
        Rendered::new(name, replacements).start()
    }

    /// nginx with `nginx.conf` in front of two upstreams.
    pub fn before(one: impl ToString, two: impl ToString) -> Nginx {
        Nginx::start("nginx.conf", &instances(one, two))
    }

    /// A connection that has said nothing yet.
    pub fn connect(&self) -> Client {
        Client::connect(self.files.addr)
    }

    /// A connection upgraded on `/ws`.
    pub fn open(&self) -> Client {
        let mut client = self.connect();
        client.upgrade("");
        client
    }

    /// A connection from an address that nothing else has, which has said nothing yet.
    pub fn connect_from_own_ip(&self) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((own_ips()[1], 0)).into()).expect("an address");
        socket.connect(&self.files.addr.into()).expect("nginx accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        Client::over(socket.into())
    }

    /// `nginx -s reload`, until the old workers accept nothing more.
    pub fn reload(&self) {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its workers");
        let mut command = self.files.command(&["-s", "reload"]);
        command.stderr(Stdio::piped());
        let (code, _, stderr) = run(command);
        assert_eq!(code, 0, "{stderr}");
        let title = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_leaving = |pid: &str| title(pid).is_empty() || title(pid).contains("shutting down");
        eventually("the old workers", || children.split_whitespace().all(is_leaving));
    }

    /// What it wrote to the access log.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.files.path("access.log")).unwrap_or_default()
    }

    fn error_log(&self) -> String {
        fs::read_to_string(self.files.path("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("nginx's error log:\n{}", self.error_log());
        }
        // SIGKILL would leave the workers behind; at SIGTERM the master ends them.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            send_signal(&self.child, "TERM");
        }
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && start.elapsed() < PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// The fixed instances of `nginx.conf`.
pub fn instances(one: impl ToString, two: impl ToString) -> [(&'static str, String); 2] {
    [("ws-backend-1:8080", one.to_string()), ("ws-backend-2:8080", two.to_string())]
}

/// An upstream of the test's own: it gives what comes up to the first empty line, and answers with fixed bytes.
pub struct RawUpstream {
    pub addr: SocketAddr,
    heads: mpsc::Receiver<String>,
}

impl RawUpstream {
    /// For each connection: reads a request, sends `answer`, reads `then` bytes more, and closes.
    pub fn start(answer: &'static [u8], then: usize) -> RawUpstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (sender, heads) = mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
                    head.push(byte[0]);
                }
                let _ = sender.send(String::from_utf8_lossy(&head).into_owned());
                let _ = stream.write_all(answer);
                let _ = stream.read_exact(&mut vec![0; then]);
            }
        });
        RawUpstream { addr, heads }
    }

    /// The head of the next request.
    pub fn head(&self) -> String {
        self.heads.recv_timeout(PATIENCE).expect("a request comes")
    }

    /// Whether no request has come that was not taken by [`RawUpstream::head`].
    pub fn is_quiet(&self) -> bool {
        self.heads.try_recv().is_err()
    }
}

/// A name server for one name, as Docker's is for the tasks of a service.
pub struct Tasks {
    pub addr: SocketAddr,
    ips: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl Tasks {
    /// Answers questions for the addresses of `name`.
    pub fn start(name: &str, ips: &[Ipv4Addr]) -> Tasks {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let tasks = Tasks { addr: socket.local_addr().expect("bound"), ips: Arc::new(Mutex::new(ips.to_vec())) };
        let ips = Arc::clone(&tasks.ips);
        // Each label after its length, an empty one at the end, type A, class IN (RFC 1035, section 4.1.2).
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        let question: Vec<u8> = labels.chain([0, 0, 1, 0, 1]).collect();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((bytes, from)) = socket.recv_from(&mut packet) {
                assert_eq!(packet[12..bytes], question, "the question");
                let ips = ips.lock().expect("addresses").clone();
                let mut answer = packet[..2].to_vec();
                answer.extend([0x81, 0x80, 0, 1, 0, ips.len() as u8, 0, 0, 0, 0]);
                answer.extend(&question);
                for ip in ips {
                    // The name above, type A, class IN, good for an hour, four bytes.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
                    answer.extend(ip.octets());
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        tasks
    }

    /// From now on the name has these addresses.
    pub fn set(&self, ips: &[Ipv4Addr]) {
        *self.ips.lock().expect("addresses") = ips.to_vec();
    }
}
