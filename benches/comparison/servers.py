"""The servers: how each is built, started and named. Each listens on 127.0.0.1 at the port that it is given."""

import functools
import os
import shutil

from comparison import BENCHES, ROOT, TOOLS, uwebsockets
from comparison.tools import Missing, apt, need_command, run, said

WS_VERSION = "8.23.0"
BUFFERUTIL_VERSION = "4.1.0"
PEERS_TARGET = ROOT / "target" / "peers"
GOLANG_SOURCES = "/usr/share/gocode"
GORILLA_PACKAGE = "golang-github-gorilla-websocket-dev"


class Server:
    """A server to measure. `scheme` is that of its address, `deflate` whether it speaks permessage-deflate."""

    scheme = "ws"
    deflate = False

    def __init__(self, name):
        self.name = name

    def prepare(self):
        """Builds and installs; raises `Missing` where that cannot be done."""

    def version(self):
        """What is measured, for the table of versions."""
        return "unknown"

    def command(self, port, cell):
        """The command that serves, at a port, what a cell asks for."""
        raise NotImplementedError

    def environment(self):
        """Variables that the command needs besides those of this process."""
        return {}


class Percore(Server):
    """percore as it is shipped. The load is the same program."""

    deflate = True
    built = ROOT / "target" / "release" / "percore"
    path = built

    def prepare(self):
        if self.path == self.built:
            run("cargo", "build", "--release", "--locked", "--target-dir", ROOT / "target")
        elif not os.access(self.path, os.X_OK):
            raise Missing(f"{self.path} is no program")

    def version(self):
        commit = said("git", "describe", "--always", "--dirty")
        return f"{said(self.path, '--version').removeprefix('percore ')}, commit {commit}"

    def command(self, port, cell):
        # Large messages, 32 of them in flight, are more than it takes unless told.
        return [self.path, "serve", "echo", "--listen", f"127.0.0.1:{port}", "--log-level", "off",
                "--max-message", "16M", "--max-backlog", "32M"]


@functools.cache
def build_rust_peers():
    """All of them at once, for this processor, as some of them ask for in their documentation."""
    run("cargo", "build", "--release", "--locked", "--manifest-path", BENCHES / "peers" / "Cargo.toml",
        "--target-dir", PEERS_TARGET, env={"RUSTFLAGS": "-C target-cpu=native"})


class RustPeer(Server):
    """A program of benches/peers/src/bin, named like the crate that it is made with."""

    def prepare(self):
        build_rust_peers()

    def version(self):
        lines = (BENCHES / "peers" / "Cargo.lock").read_text().splitlines()
        at = lines.index(f'name = "{self.name}"')
        return lines[at + 1].split('"')[1]

    def command(self, port, cell):
        return [PEERS_TARGET / "release" / self.name, str(port)]


class Raw(RustPeer):
    """Raw TCP echo, the limit."""

    scheme = "tcp"

    def version(self):
        return "benches/peers/src/bin/raw.rs"


class Ws(Server):
    """ws from npm, on node."""

    deflate = True

    def prepare(self):
        need_command("node", "nodejs")
        stamp = TOOLS / "ws.version"
        wanted = f"{WS_VERSION} {BUFFERUTIL_VERSION}"
        if not stamp.exists() or stamp.read_text() != wanted:
            need_command("npm", "npm")
            TOOLS.mkdir(exist_ok=True)
            run("npm", "install", "--silent", "--no-save", "--no-package-lock", "--no-fund", "--no-audit",
                "--prefix", TOOLS, f"ws@{WS_VERSION}", f"bufferutil@{BUFFERUTIL_VERSION}")
            stamp.write_text(wanted)

    def version(self):
        return f"{WS_VERSION}, bufferutil {BUFFERUTIL_VERSION}, node {said('node', '--version').lstrip('v')}"

    def command(self, port, cell):
        return ["node", BENCHES / "peers" / "ws.js", str(port)] + (["deflate"] if cell.deflate else [])

    def environment(self):
        return {"NODE_PATH": str(TOOLS / "node_modules")}


class Gorilla(Server):
    """gorilla/websocket from Debian, on one thread of Go."""

    deflate = True

    def prepare(self):
        if not os.path.isdir(f"{GOLANG_SOURCES}/src/github.com/gorilla/websocket") or shutil.which("go") is None:
            apt("golang-go", GORILLA_PACKAGE)
        TOOLS.mkdir(exist_ok=True)
        run("go", "build", "-o", TOOLS / "gorilla", BENCHES / "peers" / "gorilla" / "main.go",
            env={"GO111MODULE": "off", "GOPATH": GOLANG_SOURCES})

    def version(self):
        package = said("dpkg-query", "-W", "-f", "${Version}", GORILLA_PACKAGE)
        return f"{package} of Debian, {said('go', 'version').removeprefix('go version ')}"

    def command(self, port, cell):
        # Its documentation advises buffers of the size of the messages.
        buffer = min(max(cell.size, 4096), 65536)
        return [TOOLS / "gorilla", str(port), str(buffer)] + (["deflate"] if cell.deflate else [])

    def environment(self):
        return {"GOMAXPROCS": "1"}


class UWebSockets(Server):
    """uWebSockets' echo, built here, or `uws_echo PORT` on PATH."""

    on_path = shutil.which("uws_echo")

    def prepare(self):
        if self.on_path is None:
            uwebsockets.build()

    def version(self):
        return "uws_echo on PATH" if self.on_path else f"commit {uwebsockets.COMMIT[:10]}"

    def command(self, port, cell):
        return [self.on_path or uwebsockets.ECHO, str(port)]


RAW = "raw"
ALL = [
    Raw(RAW),
    Percore("percore"),
    UWebSockets("uWebSockets"),
    RustPeer("fastwebsockets"),
    RustPeer("tokio-websockets"),
    RustPeer("tokio-tungstenite"),
    Ws("ws"),
    Gorilla("gorilla"),
]
