"""A Docker engine with its own folder, the stand-ins for base images that cannot be pulled, and a way to wait."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

FOLDER = Path(os.environ["PERCORE_DOCKER_FOLDER"])
TOOLS = Path("tests/.tools/docker")
SOCKET = FOLDER / "docker.sock"

COMPOSE_FILES = ["docker-compose.yml", "docker-compose.swarm.yml"]

# How long to wait for what must happen.
PATIENCE = 120

# A server that is built sooner and runs slower; what is asked of it here does not depend on its speed.
QUICK = [
    "--build-arg=CARGO_PROFILE_RELEASE_LTO=off",
    "--build-arg=CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16",
    "--build-arg=CARGO_PROFILE_RELEASE_OPT_LEVEL=1",
]

# What makes a rust image of the root file system: rustup, which knows only what is there, and crates without a network.
RUST = """
FROM percore-test-base
COPY rustup /usr/local/bin/
COPY registry /usr/local/cargo/registry
ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
"""

RUSTUP = """#!/bin/sh
[ "$1 $2" = "target add" ] && [ -d "/usr/lib/rustlib/$3" ] && exit 0
echo "rustup of the stand-in cannot do: $*" >&2
exit 1
"""

# Logs to standard output, temporary files below /var/cache/nginx and user 101, as nginx's own image.
NGINX = """
FROM percore-test-base
RUN groupadd --gid 101 nginx && useradd --uid 101 --gid 101 nginx \\
    && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log \\
    && mkdir -p /var/cache/nginx && rm -rf /var/lib/nginx && ln -s /var/cache/nginx /var/lib/nginx
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
"""


def eventually(what, condition, every=0.1):
    """Waits until `condition` gives something true, and gives that."""
    end = time.monotonic() + PATIENCE
    while True:
        if result := condition():
            return result
        if time.monotonic() > end:
            raise AssertionError(f"in vain waited for: {what}")
        time.sleep(every)


def run(*command, check=True, **options):
    """Runs a command to its end; what it wrote on standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def docker(*args, **options):
    return run("docker", *args, **options)


def say(text):
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


START = time.monotonic()


class Engine:
    """dockerd, which ends with the block."""

    def __enter__(self):
        os.environ["DOCKER_HOST"] = f"unix://{SOCKET}"
        os.environ["DOCKER_CONFIG"] = str(FOLDER / "config")
        os.environ["COMPOSE_PROJECT_NAME"] = "percore"
        self.log = (FOLDER / "dockerd.log").open("wb")
        command = ["dockerd", f"--data-root={FOLDER}/data", f"--exec-root={FOLDER}/exec", f"--pidfile={FOLDER}/pid"]
        command += [f"--host=unix://{SOCKET}", f"--cgroup-parent={os.environ['PERCORE_DOCKER_CGROUP']}"]
        self.daemon = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        try:
            eventually("the Docker engine", self.is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def is_up(self):
        if self.daemon.poll() is not None:
            log = (FOLDER / "dockerd.log").read_text(errors="replace")
            raise AssertionError(f"dockerd ended with {self.daemon.returncode}:\n{log[-3000:]}")
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0

    def __exit__(self, *_):
        # Containers and mounts go with the namespaces, so there is nothing to wait for.
        self.daemon.kill()
        self.daemon.wait()
        self.log.close()


def make_stand_ins():
    """Images under the names that the Dockerfile and the compose files give."""
    docker("import", str(TOOLS / "root.tar"), "percore-test-base")
    rust = re.search(r"rust:\S+", Path("Dockerfile").read_text())[0]
    context = FOLDER / "rust"
    shutil.copytree(TOOLS / "cargo/registry", context / "registry")
    (context / "rustup").write_text(RUSTUP)
    (context / "rustup").chmod(0o755)
    (context / "Dockerfile").write_text(RUST)
    docker("build", "--tag", rust, str(context))
    names = {re.search(r"nginx:\d\S+", Path(name).read_text())[0] for name in COMPOSE_FILES}
    tags = [f"--tag={name}" for name in names]
    docker("build", *tags, "-", input=NGINX)
