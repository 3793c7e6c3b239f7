"""Installing what is missing, from Debian, npm and PyPI, and running what builds."""

import os
import shutil
import subprocess

from comparison import ROOT, TOOLS


class Missing(Exception):
    """A server cannot be had here; the text says why."""


def run(*command, env=None):
    """Runs a command that builds or installs; what it prints is shown only when it fails."""
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise Missing(f"{' '.join(map(str, command))} failed: {done.stdout.strip()[-600:]}")
    return done.stdout.strip()


def said(*command, env=None):
    """What a command prints, or "unknown" where it is not there."""
    try:
        return run(*command, env=env)
    except Missing:
        return "unknown"


def apt(*packages):
    """Installs Debian packages where that can be done without asking."""
    if shutil.which("apt-get") is None:
        raise Missing(f"install {' '.join(packages)} first: there is no apt-get here")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    run(*sudo, "apt-get", "update", "-q")
    run(*sudo, "apt-get", "install", "-qy", "--no-install-recommends", *packages)


def need_command(command, *packages):
    """Sees to it that a command is there."""
    if shutil.which(command) is None:
        apt(*packages)


def venv_with(package, version):
    """The Python of a virtual environment with one package, which is made on first use."""
    python = TOOLS / "venv" / "bin" / "python"
    stamp = TOOLS / f"{package}.version"
    if not (python.exists() and stamp.exists() and stamp.read_text() == version):
        TOOLS.mkdir(exist_ok=True)
        try:
            run("python3", "-c", "import ensurepip, venv")
        except Missing:
            apt("python3-venv")
        run("python3", "-m", "venv", "--clear", TOOLS / "venv")
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{package}=={version}")
        stamp.write_text(version)
    return python
