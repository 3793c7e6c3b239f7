"""Sessions of `percore client` on a pseudo-terminal: terminal.py PERCORE ECHO_URL TICKER_URL HOSTILE_URL HOSTILE_URL FOLDER. Ends with 0 when all went as typed."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 60
UP, BACKSPACE, LEFT, CTRL_C, CTRL_D, ENTER = "\x1b[A", "\x7f", "\x1b[D", "\x03", "\x04", "\r"


class Terminal:
    """A terminal of 80 columns in which a command runs."""

    def __init__(self, *command, **variables):
        # Ours stays open, so that how the terminal was left can be seen when the command has ended.
        self.screen, self.keys = pty.openpty()
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.keys)
        self.text = ""
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.keys, termios.TIOCSCTTY, 0)
            for descriptor in range(3):
                os.dup2(self.keys, descriptor)
            os.execve(command[0], command, {"TERM": "xterm", "PATH": os.environ["PATH"], "NO_COLOR": "1", **variables})

    def type(self, *keys):
        os.write(self.screen, "".join(keys).encode())

    def types(self, *keys):
        """Types once the editor asks: what is typed before that is the terminal's own, as Ctrl-D is."""
        self.shows("> ")
        self.type(*keys)

    def pastes(self, text):
        """Types much, in pieces that the terminal holds, and takes what is shown meanwhile."""
        self.shows("> ")
        for start in range(0, len(text), 1000):
            self.type(text[start : start + 1000])
            while select.select([self.screen], [], [], 0)[0]:
                self.read(time.monotonic() + PATIENCE, "a row")

    def read(self, deadline, what):
        if not select.select([self.screen], [], [], max(0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"in vain waited for {what}:\n{self.text!r}")
        self.text += os.read(self.screen, 65536).decode()

    def shows(self, pattern):
        """Waits until what was written since the last call contains this."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            self.read(deadline, pattern)
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def ends(self):
        """Waits for the end: the exit code, and what was still written. The terminal is as it was."""
        deadline = time.monotonic() + PATIENCE
        while (done := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text!r}"
            if select.select([self.screen], [], [], 0.01)[0]:
                self.read(deadline, "the end")
        while select.select([self.screen], [], [], 0)[0]:
            self.read(deadline, "the rest")
        assert termios.tcgetattr(self.keys) == self.before, "the terminal is left in another mode"
        return os.waitstatus_to_exitcode(done[1]), self.text


def editing(percore, url, folder):
    terminal = Terminal(percore, "client", url, XDG_STATE_HOME=folder)
    terminal.shows("percore: connected to ")
    terminal.types("helo", BACKSPACE, "lo", ENTER)
    terminal.shows("< hello\r\n")
    # Above the last line, one letter in the middle.
    terminal.types(UP, LEFT, LEFT, "L", ENTER)
    terminal.shows("< helLlo\r\n")
    terminal.types(UP, UP, "!", ENTER)
    terminal.shows("< hello!\r\n")
    terminal.types("\u00e9t\u00e9 \U0001f980", ENTER)
    terminal.shows("< \u00e9t\u00e9 \U0001f980\r\n")
    # What is pasted is as many messages as it has lines.
    terminal.types("one", ENTER, "two", ENTER, "three", ENTER)
    for line in ("one", "two", "three"):
        terminal.shows(f"< {line}\r\n")
    terminal.types("four\r\nfive\r\n")
    terminal.shows("< four\r\n")
    # No empty message comes back between the two.
    assert not re.search(r"< \r\n", terminal.shows("< five\r\n"))
    terminal.types(CTRL_D)
    code, text = terminal.ends()
    assert code == 0 and "percore: closed with 1000" in text, (code, text)


def history(percore, url, folder):
    terminal = Terminal(percore, "client", url, XDG_STATE_HOME=folder)
    terminal.shows("percore: connected to ")
    terminal.types(UP * 7, ENTER)
    terminal.shows("< hello!\r\n")
    # Ctrl-C ends while a line is being typed.
    terminal.types("half a li", CTRL_C)
    code, text = terminal.ends()
    assert code == 0 and "percore: closed with 1000" in text, (code, text)
    kept = os.path.join(folder, "percore", "history")
    lines = open(kept, encoding="utf-8").read()
    assert lines.count("hello!") == 2 and "half" not in lines, lines
    assert os.stat(kept).st_mode & 0o077 == 0, "what was typed is nobody else's"
    silent = Terminal(percore, "client", "--no-history", url, XDG_STATE_HOME=folder)
    silent.shows("percore: connected to ")
    silent.types(UP, "secret", ENTER)
    silent.shows("< secret\r\n")
    silent.types(CTRL_D)
    assert silent.ends()[0] == 0
    assert open(kept, encoding="utf-8").read() == lines


def messages_between_keys(percore, url, folder):
    terminal = Terminal(percore, "client", "--no-history", url)
    terminal.types('TickerRequest:{"Id":"x","Tickers":["SPY"]}', ENTER)
    terminal.shows("> ")
    for typed in ("a", "ab", "abc"):
        terminal.type(typed[-1])
        # The line is there again below each message.
        terminal.shows(r"< TickerChange:[^\r]*\r\n[^\n]*> " + typed + r"(\x1b|\r)")
    terminal.type(ENTER)
    terminal.shows("< Error:")
    code, text = terminal.ends()
    assert code == 1 and "closed with 1007" in text, (code, text)


def escapes(percore, url, folder):
    terminal = Terminal(percore, "client", "--no-history", url)
    terminal.shows("percore: connected to ")
    terminal.shows(r"< \\u\{1b\}\[31mred\\r\\u\{9b\}2J\r\n")
    terminal.types(CTRL_D)
    assert terminal.ends()[0] == 0


def plain(percore, url):
    """One on which no line can be edited: messages are harmless all the same, and Ctrl-D ends it."""
    terminal = Terminal(percore, "client", url, TERM="dumb")
    terminal.shows("percore: connected to ")
    terminal.shows(r"\\u\{1b\}\[31mred\\r\\u\{9b\}2J\r\n")
    terminal.type(CTRL_D)
    code, text = terminal.ends()
    assert code == 0 and "percore: closed with 1000" in text, (code, text)


def signals(percore, url):
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        terminal = Terminal(percore, "client", "--no-history", url)
        terminal.shows("percore: connected to ")
        terminal.types("half a li")
        os.kill(terminal.pid, number)
        code, text = terminal.ends()
        assert code == 0 and "percore: closed with 1000" in text, (number, code, text)


def long_line(percore, url):
    terminal = Terminal(percore, "client", "--no-history", url)
    terminal.shows("percore: connected to ")
    terminal.pastes("x" * 60000)
    terminal.type(ENTER)
    terminal.shows("< " + "x" * 60000)
    terminal.pastes("x" * 60000)
    terminal.type(CTRL_C)
    assert terminal.ends()[0] == 0


def pastes_and_searches(percore, url, folder):
    terminal = Terminal(percore, "client", url, XDG_STATE_HOME=folder)
    # In either order: the keyboard has a thread of its own.
    terminal.shows(r"(?s)\x1b\[\?2004h.*percore: connected to |percore: connected to .*\x1b\[\?2004h")
    # One message, although it has lines.
    terminal.types("\x1b[200~first\r\nsecond\r\n\x1b[201~", ENTER)
    terminal.shows(r"< first\\nsecond\r\n")
    terminal.types("\x12helL")
    terminal.shows(r"\(search 'helL'\) helLlo")
    terminal.type(ENTER)
    terminal.shows("< helLlo\r\n")
    terminal.types(CTRL_D)
    code, text = terminal.ends()
    assert code == 0 and "\x1b[?2004l" in text, (code, text)


def colours(percore, url):
    terminal = Terminal(percore, "client", "--no-history", url, NO_COLOR="")
    terminal.shows(r"\x1b\[2mpercore: connected to [^\x1b]*\x1b\[0m\r\n")
    terminal.types("hello", ENTER)
    terminal.shows(r"\x1b\[36m<\x1b\[0m hello\r\n")
    terminal.types(CTRL_D)
    assert terminal.ends()[0] == 0


def nobody_there(percore, folder):
    # It ends before, while or after the editor begins.
    for _ in range(10):
        terminal = Terminal(percore, "client", "--no-history", f"unix:{folder}/nobody")
        code, text = terminal.ends()
        assert code == 1 and "No such file" in text, (code, text)


def main(percore, echo, ticker, hostile, other_hostile, folder):
    editing(percore, echo, folder)
    history(percore, echo, folder)
    messages_between_keys(percore, ticker, folder)
    escapes(percore, hostile, folder)
    plain(percore, other_hostile)
    signals(percore, echo)
    long_line(percore, echo)
    nobody_there(percore, folder)
    pastes_and_searches(percore, echo, folder)
    colours(percore, echo)


main(*sys.argv[1:])
