"""The servers: how each is started, how its clients subscribe, and how something is published on it."""

import json
import os
import struct
from pathlib import Path

from comparison import BENCHES, TOOLS
from comparison.servers import PEERS_TARGET, Percore, build_rust_peers
from comparison.tools import apt, need_command, run, said

from hubs.wire import BINARY, TEXT, WebSocket, connect, frame, post, request

NGINX = "/usr/sbin/nginx"
MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
SOCKET_IO_VERSION, BUFFERUTIL_VERSION = "4.8.4", "4.1.0"
CHANNEL = "news"
# Beside the number, in bytes of the JSON that is published.
SIZE = 100


def message():
    """What is published: JSON in which the load finds its number."""
    head = '{"n":"m000000000","text":"'
    return head + "x" * (SIZE - len(head) - 2) + '"}'


class Hub:
    """A server with channels. What it keeps of them is `history`, in messages."""

    # Whether it publishes what comes by HTTP.
    has_http = False

    def __init__(self, name):
        self.name = name

    def prepare(self):
        """Installs or builds it; raises `Missing` where that cannot be done."""

    def version(self):
        """What is measured."""
        return "unknown"

    def command(self, port, folder, history):
        """The command that serves, as its documentation advises for one core."""
        raise NotImplementedError

    def environment(self):
        """Variables that it needs besides those of this process."""
        return {}

    def pids(self, process):
        """The processes whose time and memory count."""
        return [process.pid]

    def subscriber(self, port):
        """The socket of a client that is subscribed."""
        raise NotImplementedError

    def publisher(self, port):
        """The socket over which is published."""
        raise NotImplementedError

    def publication(self):
        """What publishes a message, as bytes for the publisher's socket."""
        raise NotImplementedError


class Writes(Hub):
    """A bare loop of writes: the limit."""

    def prepare(self):
        build_rust_peers()

    def version(self):
        return "benches/peers/src/bin/writes.rs"

    def command(self, port, folder, history):
        return [PEERS_TARGET / "release" / "writes", port]

    def subscriber(self, port):
        connection = connect(port)
        connection.sendall(b"s")
        connection.recv(1)
        return connection

    def publisher(self, port):
        return connect(port)

    def publication(self):
        # The bytes that `serve channels` makes of it.
        payload = f'{{"push":{{"channel":"{CHANNEL}","pub":{{"data":{message()}}}}}}}'.encode()
        return struct.pack("!BBH", TEXT, 126, len(payload)) + payload


class Channels(Hub):
    """`percore serve channels`, as it is shipped, but for the rate at which a client may send."""

    has_http = True

    def prepare(self):
        Percore("percore").prepare()

    def version(self):
        return f"{said(Percore.path, '--version').removeprefix('percore ')}, commit {said('git', 'describe', '--always', '--dirty')}"

    def command(self, port, folder, history):
        return [Percore.path, "serve", "channels", "--listen", f"127.0.0.1:{port}", "--service-listen",
                f"127.0.0.1:{port + 1}", "--history-size", history, "--log-level", "off", "--rate-messages", 0]

    def subscriber(self, port):
        client = WebSocket(port, "/connection/websocket")
        client.say('{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": {"channel": CHANNEL}}))
        client.until(b'"subscribe"')
        return client.socket

    def publisher(self, port):
        return connect(port + 1)

    def publication(self):
        return post("/api/publish", f'{{"channel":"{CHANNEL}","data":{message()}}}'.encode())

    def publish_one(self, port):
        """Publishes a message."""
        with self.publisher(port) as backend:
            backend.sendall(self.publication())
            if b'"offset"' not in backend.recv(4096):
                raise OSError("nothing was published")

    def return_of_a_client(self):
        """The request and the first message of a client that missed all there is."""
        subscribe = {"channel": CHANNEL, "recover": True, "offset": 0, "epoch": ""}
        first = '{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": subscribe})
        return request("/connection/websocket"), frame(first.encode())


class Nchan(Hub):
    """nchan in Debian's nginx, one worker."""

    has_http = True
    CONFIG = """\
load_module {module};
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /pub {{ nchan_publisher http; nchan_channel_id $arg_id; {history} }}
        location = /sub {{ nchan_subscriber websocket; nchan_channel_id $arg_id; {history} }}
    }}
}}
"""

    def prepare(self):
        if not os.access(MODULE, os.R_OK):
            apt("nginx", "libnginx-mod-nchan")

    def version(self):
        return f"{said('dpkg-query', '-W', '-f', '${Version}', 'libnginx-mod-nchan')} of Debian"

    def command(self, port, folder, history):
        kept = f"nchan_message_buffer_length {history};" if history else "nchan_store_messages off;"
        path = Path(folder) / "nginx.conf"
        path.write_text(self.CONFIG.format(module=MODULE, folder=folder, port=port, history=kept))
        return [NGINX, "-c", path, "-e", f"{folder}/error.log"]

    def pids(self, process):
        # The master waits.
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    def subscriber(self, port):
        return WebSocket(port, f"/sub?id={CHANNEL}").socket

    def publisher(self, port):
        return connect(port)

    def publication(self):
        return post(f"/pub?id={CHANNEL}", message().encode())


class Nats(Hub):
    """NATS by WebSocket, on one core."""

    def prepare(self):
        need_command("nats-server", "nats-server")

    def version(self):
        return f"{said('dpkg-query', '-W', '-f', '${Version}', 'nats-server')} of Debian"

    def command(self, port, folder, history):
        path = Path(folder) / "nats.conf"
        path.write_text(f'listen: "127.0.0.1:{port + 1}"\nwebsocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\n')
        return ["nats-server", "-c", path]

    def environment(self):
        return {"GOMAXPROCS": "1"}

    def _client(self, port, then):
        client = WebSocket(port, "/")
        client.until(b"INFO")
        client.say('CONNECT {"verbose":false,"pedantic":false}\r\n' + then + "PING\r\n", BINARY)
        client.until(b"PONG")
        return client.socket

    def subscriber(self, port):
        return self._client(port, f"SUB {CHANNEL} 1\r\n")

    def publisher(self, port):
        return self._client(port, "")

    def publication(self):
        return frame(f"PUB {CHANNEL} {SIZE}\r\n{message()}\r\n".encode(), BINARY)


class SocketIo(Hub):
    """Socket.IO on node, with rooms."""

    def prepare(self):
        need_command("node", "nodejs")
        stamp, wanted = TOOLS / "socket.io.version", f"{SOCKET_IO_VERSION} {BUFFERUTIL_VERSION}"
        if not stamp.exists() or stamp.read_text() != wanted:
            need_command("npm", "npm")
            (TOOLS / "socket.io").mkdir(parents=True, exist_ok=True)
            # In a folder of its own: npm takes away what it is not told of.
            run("npm", "install", "--silent", "--no-save", "--no-package-lock", "--no-fund", "--no-audit", "--prefix",
                TOOLS / "socket.io", f"socket.io@{SOCKET_IO_VERSION}", f"bufferutil@{BUFFERUTIL_VERSION}")
            stamp.write_text(wanted)

    def version(self):
        return f"{SOCKET_IO_VERSION}, bufferutil {BUFFERUTIL_VERSION}, node {said('node', '--version').lstrip('v')}"

    def command(self, port, folder, history):
        return ["node", BENCHES / "peers" / "socketio.js", port]

    def environment(self):
        return {"NODE_PATH": str(TOOLS / "socket.io" / "node_modules")}

    def _client(self, port):
        client = WebSocket(port, "/socket.io/?EIO=4&transport=websocket")
        client.say("40")
        client.until(b"40{")
        return client

    def subscriber(self, port):
        client = self._client(port)
        client.say(f'420["subscribe","{CHANNEL}"]')
        client.until(b"430[")
        return client.socket

    def publisher(self, port):
        return self._client(port).socket

    def publication(self):
        return frame(f'42["publish","{CHANNEL}",{message()}]'.encode())


LIMIT, OURS, NCHAN = "writes", "percore", "nchan"
ALL = [Writes(LIMIT), Channels(OURS), Nchan(NCHAN), Nats("NATS"), SocketIo("Socket.IO")]
