"""Processes of the harness: which core, how urgent, and how they begin together. Each is ended by whoever started it."""

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import time

# How long connecting may take before a row counts as failed.
READY_IN = 90.0
# A child that does not end by itself gets this long before it is killed.
ENDS_IN = 5.0
PR_SET_PDEATHSIG = 1
# In place of a nice value: before everything else on its core.
REAL_TIME = -100
_context = multiprocessing.get_context("fork")


class Start:
    """The moment at which all begin, and that at which they end."""

    def __init__(self, seconds):
        self.seconds = seconds
        self._ready, self._go, self._over = _context.Semaphore(0), _context.Event(), _context.Event()
        self._at = _context.Value("d", 0.0, lock=False)

    def is_ready(self):
        """For a child: it has connected."""
        self._ready.release()

    def wait(self):
        """For a child: waits for the beginning, and says when it was."""
        self._go.wait()
        return self._at.value

    def wait_for(self, children):
        """For the parent: waits until a number of children have said that they are ready. False when they are not in time."""
        deadline = time.monotonic() + READY_IN
        return all(self._ready.acquire(timeout=max(deadline - time.monotonic(), 0)) for _ in range(children))

    def go(self):
        """For the parent: begins."""
        self._at.value = time.monotonic()
        self._go.set()
        return self._at.value

    def end(self):
        """For the parent: the attack is over."""
        self._over.set()

    def is_over(self):
        """For a child: whether the attack is over."""
        return self._over.is_set()


class Child:
    """A process that runs a function and may give back a value."""

    def __init__(self, function, core, nice):
        self._receiver, sender = _context.Pipe(duplex=False)
        parent = os.getpid()
        self._process = _context.Process(target=_run, args=(function, sender, core, nice, parent), daemon=True)
        self._process.start()
        sender.close()

    def result(self, within):
        """What the function gave back, or nothing when it failed or took too long."""
        try:
            return self._receiver.recv() if self._receiver.poll(within) else None
        except EOFError:
            return None

    def end(self):
        """Sees to it that it has ended."""
        self._process.join(ENDS_IN)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._receiver.close()

    def kill(self):
        """Ends it at once."""
        self._process.kill()
        self.end()


def _run(function, sender, core, nice, parent):
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place(core, nice)
    # A collection would be a pause, and nothing here lives long.
    gc.disable()
    sender.send(function())


def die_with(parent):
    """Has the kernel end this process with its parent, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def place(core, nice):
    """Keeps this process to a core, where there is a choice, and gives it its priority, where that is allowed."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        if nice == REAL_TIME:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        else:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, 0))


def raise_descriptor_limit():
    """As many open files as may be; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
