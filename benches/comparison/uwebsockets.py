"""uWebSockets, cloned at a fixed commit and built: an echo server, a server with topic publish, and its own load."""

import shutil

from comparison import BENCHES, TOOLS
from comparison.tools import need_command, run

SOURCE = "https://github.com/uNetworking/uWebSockets"
COMMIT = "66dcff3dd48f0c19dd1703426365d062039321d0"
FOLDER = TOOLS / "uwebsockets"
ECHO, BROADCAST, LOAD = FOLDER / "echo", FOLDER / "broadcast", FOLDER / "broadcast_test"
PEERS = BENCHES / "peers" / "uwebsockets"
FLAGS = ["-O3", "-march=native", "-flto=auto", "-DLIBUS_NO_SSL", "-DUWS_NO_ZLIB", "-IuSockets/src", "-Isrc", "-w"]


def build(source=None):
    """Builds all three, of a clone or of sources that are there; nothing where they are built already."""
    programs = {ECHO: PEERS / "echo.cpp", BROADCAST: PEERS / "broadcast.cpp"}
    stamp = FOLDER / "built"
    wanted = "\n".join([str(source or COMMIT), *(path.read_text() for path in programs.values())])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    need_command("git", "git")
    need_command("c++", "g++")
    tree = FOLDER / "source"
    shutil.rmtree(tree, ignore_errors=True)
    if source:
        shutil.copytree(source, tree, symlinks=True)
    else:
        run("git", "clone", "--quiet", "--filter=blob:none", SOURCE, tree)
        run("git", "-C", tree, "checkout", "--quiet", COMMIT)
        run("git", "-C", tree, "submodule", "update", "--quiet", "--init", "uSockets")
    parts = [str(path.relative_to(tree)) for path in sorted(tree.glob("uSockets/src/*.c"))
             + sorted(tree.glob("uSockets/src/eventing/*.c")) + sorted(tree.glob("uSockets/src/crypto/*.c"))]
    compiler = lambda *words: run("sh", "-c", 'cd "$0" && exec "$@"', tree, *words)
    for part in [*parts, "benchmarks/broadcast_test.c"]:
        compiler("cc", "-std=gnu11", *FLAGS, "-c", part, "-o", part.replace("/", "_") + ".o")
    objects = [part.replace("/", "_") + ".o" for part in parts]
    compiler("cc", *FLAGS, "benchmarks_broadcast_test.c.o", *objects, "-o", LOAD)
    for program, text in programs.items():
        compiler("c++", "-std=c++2b", *FLAGS, text, *objects, "-o", program)
    stamp.write_text(wanted)
