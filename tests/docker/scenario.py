"""The Dockerfile and the compose files as they are, in a real Docker engine: what docs/containers.md shows."""

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from engine import FOLDER, QUICK, Engine, docker, eventually, make_stand_ins, run, say

URL = "ws://localhost:8080/ws"
GREETING = re.compile(r"\[(\w+)\] hello :\) type a message and press ENTER")

# The image of the quick build; the one that docs/containers.md describes is smaller.
MOST_IMAGE_BYTES = 11_000_000

# Seconds between requests for hosts.
POLL = 0.5


class Client:
    """A connection, and the host that greeted it."""

    def __init__(self):
        self.socket = connect(URL, open_timeout=15, close_timeout=5, compression=None).__enter__()
        self.host = GREETING.fullmatch(self.socket.recv(timeout=15))[1]

    def echo(self, text="hello"):
        self.socket.send(text)
        assert self.socket.recv(timeout=15) == f"[{self.host}] {text}"

    def close_code(self):
        """The code with which the server closes, once it does."""
        try:
            return f"in place of a close came {self.socket.recv(timeout=60)}"
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def close(self):
        self.socket.close()


def hosts(count):
    """The hosts of so many new connections, which are all open at a time. More often than once in POLL seconds, and
    nginx limits the rate of their requests."""
    clients = [Client() for _ in range(count)]
    for client in clients:
        client.echo()
        client.close()
    return {client.host for client in clients}


def is_served():
    return run("curl", "--fail", "--silent", "http://localhost:8080/healthz", check=False) == "ok"


def inspect(name):
    return json.loads(docker("inspect", name))[0]


def image():
    """The classic builder by docker-compose, then what came of it."""
    compose("build", *QUICK)
    built = inspect("percore")
    config = built["Config"]
    assert config["User"] == "65532:65532", config["User"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}, config["ExposedPorts"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/percore"], ["serve", "echo"])
    assert config["StopSignal"] == "SIGTERM" and "PORT=8080" in config["Env"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/percore", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.title"] == "percore"
    assert built["Size"] < MOST_IMAGE_BYTES, built["Size"]
    say(f"the image has {built['Size']:,} bytes")

    # One program and its man pages: what else a container shows is Docker's own.
    created = docker("create", "percore")
    archive = FOLDER / "image.tar"
    docker("export", f"--output={archive}", created)
    with tarfile.open(archive) as files:
        names = [file.name for file in files if file.isreg() and file.size > 0]
        pages = [name for name in names if re.fullmatch(r"usr/share/man/man1/percore[a-z-]*\.1", name)]
        assert pages and sorted(names) == sorted(["percore", *pages]), names
    docker("rm", created)
    shell = ["docker", "run", "--rm", "--entrypoint=/bin/sh", "percore"]
    refused = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "no such file" in refused.stderr, refused.stderr

    # As little as a container can be given, and another port, as Knative gives one.
    bare = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"]
    name = docker("run", "--detach", *bare, "--env=PORT=9000", "--health-interval=1s", "percore")
    eventually("a healthy container", lambda: inspect(name)["State"]["Health"]["Status"] == "healthy")
    assert "Starting server on 0.0.0.0:9000" in logs(name)
    docker("exec", name, "/percore", "healthcheck", "http://127.0.0.1:9000/healthcheck")
    sick = ["docker", "exec", name, "/percore", "healthcheck", "http://127.0.0.1:1"]
    assert subprocess.run(sick, capture_output=True, check=False).returncode == 1
    docker("stop", name)
    assert inspect(name)["State"]["ExitCode"] == 0
    docker("rm", name)


def logs(name):
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def compose(*args):
    return run("docker-compose", *args)


def container(service):
    return compose("ps", "--all", "--quiet", service)


def composed():
    """Row by row what a user does with docker-compose up."""
    compose("up", "--detach")
    try:
        eventually("nginx", is_served)
        session_of_websocat()
        both = [container(f"ws-backend-{number}") for number in (1, 2)]
        names = [name[:12] for name in both]
        assert hosts(6) == set(names), "both servers are seen"
        for name in both:
            state, config = inspect(name)["State"], inspect(name)["HostConfig"]
            assert state["Health"]["Status"] == "healthy"
            assert config["ReadonlyRootfs"] and config["CapDrop"] == ["ALL"]

        # One is killed: its clients are cut off, all others and all new ones are served.
        clients = [Client() for _ in range(4)]
        compose("kill", "ws-backend-1")
        for client in clients:
            if client.host == names[0]:
                assert client.close_code() is None, "killed, it said no word"
            else:
                client.echo("not mine")
                client.close()
        assert hosts(6) == {names[1]}, "the killed one is passed over"
        compose("start", "ws-backend-1")
        eventually("the killed one to be back", lambda: names[0] in hosts(4), every=POLL)

        # One crashes, and is started again by Docker.
        restarts = inspect(both[0])["RestartCount"]
        os.kill(inspect(both[0])["State"]["Pid"], 9)
        eventually("a restart", lambda: inspect(both[0])["RestartCount"] > restarts)
        eventually("the crashed one to be back", lambda: names[0] in hosts(4), every=POLL)

        # Both are stopped: every client is told, and they end before Docker kills them, though one does not answer.
        clients, mute = [Client() for _ in range(4)], mute_client()
        assert {client.host for client in clients} == set(names)
        stop = threading.Thread(target=compose, args=("stop", "ws-backend-1", "ws-backend-2"))
        stop.start()
        assert [client.close_code() for client in clients] == [1001] * 4
        stop.join()
        mute.close()
        assert [inspect(name)["State"]["ExitCode"] for name in both] == [0, 0]
        assert any("hello from websocat" in logs(name) for name in both), "messages stand in the log"
    except BaseException:
        print(compose("logs", "--no-color"), flush=True)
        raise
    finally:
        compose("down", "--timeout=5")


class Talker:
    """A client of the chat."""

    def __init__(self, address):
        self.socket = connect(f"ws://{address}/websockets", open_timeout=15, close_timeout=5).__enter__()

    def hears(self):
        message = json.loads(self.socket.recv(timeout=15))["message"]
        return message["type"], message["contents"]

    def says(self, channel, kind, contents):
        self.socket.send(json.dumps({"channel": channel, "message": {"type": kind, "contents": contents}}))

    def joins(self):
        """Its own name, and all that are in the room."""
        self.says("chat-room", "JoinRoom", {"room": "garden"})
        listed, joined = self.hears(), self.hears()
        assert (listed[0], joined[0]) == ("MemberList", "JoinedRoom")
        assert joined[1]["user"] in listed[1]["users"]
        return joined[1]["user"], set(listed[1]["users"])


def address_of(name):
    (network,) = inspect(name)["NetworkSettings"]["Networks"].values()
    return network["IPAddress"] + ":8080"


def chat():
    """Two containers share a bus in a tmpfs volume: what one is told all clients hear, and who is killed has left."""
    os.environ["COMPOSE_PROFILES"] = "chat"
    compose("up", "--detach", "chat")
    try:
        both = [container(f"chat-backend-{number}") for number in (1, 2)]
        for name in both:
            config = inspect(name)["HostConfig"]
            assert config["ReadonlyRootfs"] and config["CapDrop"] == ["ALL"]
        eventually("nginx", lambda: run("curl", "--fail", "--silent", "http://localhost:8081/healthz", check=False) == "ok")
        # By nginx, and to each server by itself.
        talkers = [Talker("localhost:8081"), *[Talker(address_of(name)) for name in both], Talker("localhost:8081")]
        for number, talker in enumerate(talkers):
            talker.says("chat", "SubmitMessage", "hello")
            for other in talkers:
                kind, contents = other.hears()
                assert (kind, contents["content"]) == ("NewMessageReceived", "hello"), contents
            ping = run("curl", "--fail", "--silent", f"http://localhost:8081/ping{number % 2 + 1}")
            assert ping == ""
            for other in talkers:
                assert other.hears() == ("Ping", number % 2 + 1)
        of_first = talkers.pop(1)
        gone, here = of_first.joins()
        assert here == {gone}
        watcher = talkers.pop(1)
        watching, here = watcher.joins()
        assert here == {gone, watching}
        assert of_first.hears() == ("JoinedRoom", {"room": "garden", "user": watching})

        docker("kill", both[0])
        assert watcher.hears() == ("LeftRoom", {"room": "garden", "user": gone})
        late = Talker("localhost:8081")
        name, here = late.joins()
        assert here == {watching, name}
        docker("start", both[0])
        eventually("the killed one to be back", lambda: inspect(both[0])["State"]["Health"]["Status"] == "healthy")
        assert watcher.hears()[0] == "JoinedRoom"
        name, here = Talker(address_of(both[0])).joins()
        assert here > {watching, name} and len(here) == 3, here
        assert watcher.hears() == ("JoinedRoom", {"room": "garden", "user": name})
    except BaseException:
        print(compose("logs", "--no-color"), flush=True)
        raise
    finally:
        compose("down", "--timeout=5", "--volumes")
        del os.environ["COMPOSE_PROFILES"]


def mute_client():
    """A connection that is open, and from which nothing comes any more."""
    mute = socket.create_connection(("localhost", 8080), timeout=15)
    mute.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert mute.recv(1000).startswith(b"HTTP/1.1 101 ")
    return mute


def session_of_websocat():
    command = ["tests/.tools/bin/websocat", "-E", "--ping-interval", "5", "--ping-timeout", "10", URL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as websocat:
        host = GREETING.fullmatch(websocat.stdout.readline().rstrip("\n"))[1]
        websocat.stdin.write("hello from websocat\n")
        assert websocat.stdout.readline().startswith(f"[{host}] hello from websocat")
        websocat.stdin.close()
        assert websocat.wait(15) == 0


class Churn:
    """Clients that come, say a word and go, all the time."""

    def __enter__(self):
        self.seen, self.failed, self.ended = [], [], False
        self.threads = [threading.Thread(target=self.come_and_go) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def come_and_go(self):
        while not self.ended:
            try:
                client = Client()
                client.echo("here I am")
                client.close()
                self.seen.append(client.host)
            except ConnectionClosed as closed:
                # Going away is what a server that is scaled down says to whom it serves.
                if not closed.rcvd or closed.rcvd.code != 1001:
                    self.failed.append(repr(closed))
            except (OSError, TimeoutError, InvalidStatus, TypeError) as error:
                self.failed.append(repr(error))
            # Fewer than the requests a second that nginx lets one address make.
            time.sleep(0.2)

    def hosts_from_now(self, count):
        """The hosts of the next connections."""
        start = len(self.seen)
        eventually(f"{count} clients", lambda: len(self.seen) >= start + count)
        return set(self.seen[start:])

    def __exit__(self, *_):
        self.ended = True
        for thread in self.threads:
            thread.join()


def swarm():
    """The walk-through: deploy, scale up and down while clients come and go, without a reload of nginx."""
    docker("swarm", "init", "--advertise-addr=127.0.0.1")
    docker("stack", "deploy", "--compose-file=docker-compose.swarm.yml", "websockets")
    services = docker("service", "ls", "--format={{.Name}}").split()
    assert sorted(services) == ["websockets_nginx", "websockets_ws-backend"], services
    try:
        eventually("the stack", is_served)
        nginx = docker("ps", "--quiet", "--filter=name=websockets_nginx")
        with Churn() as churn:
            assert len(churn.hosts_from_now(5)) == 1
            scale(4)
            four = eventually("four servers", lambda: fours(churn.hosts_from_now(20)))
            say(f"scaled to 4: {len(churn.seen)} clients so far, {len(churn.failed)} failed")
            clients = [Client() for _ in range(24)]
            # nginx chooses by chance: of 24 clients none comes to some server once in 250 times.
            while {client.host for client in clients} < four and len(clients) < 100:
                clients.append(Client())
            assert {client.host for client in clients} == four
            scale(2)
            left = {name[:12] for name in docker("ps", "--quiet", "--filter=name=websockets_ws-backend").split()}
            assert len(left) == 2 and left < four, (left, four)
            for client in clients:
                if client.host in left:
                    client.echo("still here")
                    client.close()
                else:
                    assert client.close_code() == 1001
            assert churn.hosts_from_now(20) == left
            say(f"scaled to 2: {len(churn.seen)} clients so far, {len(churn.failed)} failed")
        assert not churn.failed, churn.failed
        assert docker("ps", "--quiet", "--filter=name=websockets_nginx") == nginx, "nginx stayed as it was"
        assert "reconfiguring" not in logs(nginx)
    except BaseException:
        for service in services:
            print(docker("service", "ps", "--no-trunc", service), flush=True)
            print(docker("service", "logs", "--raw", service)[-4000:], flush=True)
        raise
    finally:
        docker("stack", "rm", "websockets")
        docker("swarm", "leave", "--force")


def fours(seen):
    return seen if len(seen) == 4 else None


def scale(count):
    docker("service", "scale", f"websockets_ws-backend={count}")


def arm64():
    """The other architecture by BuildKit, cross-compiled; it echoes under an emulator."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    docker("build", "--platform=linux/arm64", "--tag=percore:arm64", *QUICK, ".", env=environment)
    assert inspect("percore:arm64")["Architecture"] == "arm64"
    created = docker("create", "--platform=linux/arm64", "percore:arm64")
    binary = FOLDER / "percore-arm64"
    docker("cp", f"{created}:/percore", str(binary))
    header = binary.read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and header[18] == 183, "the ELF machine of AArch64"
    emulated = ["qemu-aarch64-static", str(binary)]
    listen = {"PERCORE_LISTEN": "127.0.0.1:8080", "PATH": os.environ["PATH"]}
    server = subprocess.Popen([*emulated, "serve", "echo", "--hostname-prefix"], env=listen)
    try:
        check = [*emulated, "healthcheck"]
        eventually("the server", lambda: subprocess.run(check, env=listen, capture_output=True, check=False).returncode == 0)
        client = Client()
        for size in (0, 1, 125, 65_536, 500_000):
            client.echo("é" * size)
        server.terminate()
        assert client.close_code() == 1001
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()


def main():
    wanted = sys.argv[1:] or ["image", "composed", "chat", "swarm", "arm64"]
    if os.environ.get("PERCORE_SKIP_ARM64") == "1":
        say("arm64 is left out, as PERCORE_SKIP_ARM64=1 says")
        wanted = [name for name in wanted if name != "arm64"]
    with Engine():
        say("the engine is up")
        make_stand_ins()
        say("the stand-ins are made")
        for name in wanted:
            globals()[name]()
            say(f"{name}: passed")


if __name__ == "__main__":
    main()
