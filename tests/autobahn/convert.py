"""Makes an installed autobahntestsuite run on Python 3: convert.py before|after PACKAGE_DIR, with lib2to3 in between.

In the suite's cases a str is a string of octets. That stays so: each octet is one character (latin-1), and only the
border to the protocol library, which wants bytes, encodes and decodes. Whatever else Python 3 sees differently is
replaced line by line below.
"""

import pathlib
import re
import sys

# What the cases import instead of binascii.
OCTETS = '''\
"""Octets as str: each character is one octet (latin-1)."""
import binascii


def octets(data):
    """bytes or str of octets -> bytes"""
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def text(data):
    """bytes -> str of octets"""
    return data.decode("latin-1") if isinstance(data, (bytes, bytearray, memoryview)) else data


def b2a_hex(data):
    return binascii.b2a_hex(octets(data)).decode("ascii")


def a2b_hex(data):
    return binascii.a2b_hex(data).decode("latin-1")


hexlify, unhexlify = b2a_hex, a2b_hex
'''

# Goes into fuzzing.py, between its protocols and those of the library.
BORDER = '''

from autobahntestsuite.octets import octets as _octets, text as _text


def _raw(case):
    """Cases 12.* and 13.* work with bytes."""
    return case is not None and hasattr(case, "TESTDATA")


class _Border:
    """Octets as str on the cases' side, bytes on the library's."""

    def sendFrame(self, opcode, payload=b"", *args, **kwargs):
        return super().sendFrame(opcode, _octets(payload), *args, **kwargs)

    def sendMessage(self, payload, *args, **kwargs):
        return super().sendMessage(_octets(payload), *args, **kwargs)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if reasonUtf8 is not None:
            reasonUtf8 = _octets(reasonUtf8)
        return super().sendCloseFrame(code=code, reasonUtf8=reasonUtf8, isReply=isReply)

    def sendData(self, data, sync=False, chopsize=None):
        return super().sendData(_octets(data), sync, chopsize)

    def sendMessageFrame(self, payload, *args, **kwargs):
        return super().sendMessageFrame(_octets(payload), *args, **kwargs)

    def sendMessageFrameData(self, payload, *args, **kwargs):
        return super().sendMessageFrameData(_octets(payload), *args, **kwargs)

    def logTxFrame(self, frameHeader, payload, *args):
        return FuzzingProtocol.logTxFrame(self, frameHeader, payload, *args)


class FuzzingProtocol:'''


def before(package):
    """String literals hold raw octets above 127: written as escapes they survive as one character each."""
    for path in package.glob("case/*.py"):
        path.write_bytes(b"".join(b"\\x%02x" % octet if octet > 127 else bytes([octet]) for octet in path.read_bytes()))


def edit(path, *changes):
    """Applies (old, new) in order; an old that is not there means another version than this was written for."""
    source = path.read_text()
    for old, new in changes:
        if old not in source:
            sys.exit(f"convert.py: {path} has no {old!r}")
        source = source.replace(old, new)
    path.write_text(source)


def after(package):
    (package / "octets.py").write_text(OCTETS)
    (package / "__init__.py").write_text("from ._version import __version__\nversion = __version__\n")
    for path in [*package.glob("*.py"), *package.glob("case/*.py")]:
        if path.name == "octets.py":
            continue
        source = path.read_text()
        source = re.sub(r"^import binascii$", "from autobahntestsuite import octets as binascii", source, flags=re.M)
        source = re.sub(r"^import (.*), binascii, (.*)$",
                        r"import \1, \2\nfrom autobahntestsuite import octets as binascii", source, flags=re.M)
        source = re.sub(r"array\.array\('B', (\[[^\]]*\])\)\.tostring\(\)", r"''.join(map(chr, \1))", source)
        # A class cannot derive from object before its other base.
        source = source.replace("(object, Case, )", "(Case, )").replace("(object, Case)", "(Case, )")
        path.write_text(source)
    convert_cases(package / "case")
    convert_protocol(package / "fuzzing.py")


def convert_cases(folder):
    edit(folder / "case9_9_1.py",
         ("import implements", "import implementer"),
         ("   implements(interfaces.IPushProducer)\n", ""),
         ("class FrameProducer:", "@implementer(interfaces.IPushProducer)\nclass FrameProducer:"))
    # The library's later versions write these in snake case.
    names = ["acceptNoContextTakeover", "acceptMaxWindowBits", "requestNoContextTakeover", "requestMaxWindowBits"]
    edit(folder / "case12_x_x.py",
         *((name, re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)) for name in names))
    edit(folder / "case6_x_x.py", ("v.validate(vss[:i])", "v.validate(binascii.octets(vss[:i]))"))
    edit(folder / "case10_1_1.py", ("len(self.payload) / self", "len(self.payload) // self"))
    # Lists and tuples that are equal are pickled differently.
    edit(folder / "case.py",
         ("return pickle.dumps(obj1) == pickle.dumps(obj2)", "return [tuple(o) for o in obj1] == [tuple(o) for o in obj2]"))


def convert_protocol(path):
    edit(path,
         ("dd = data[:maxlen] + ellipses",
          "dd = data[:maxlen] + (ellipses.encode() if isinstance(data, bytes) else ellipses)"),
         ("return dd.decode('utf8', errors = 'replace' if replace else 'strict')",
          "return (dd if isinstance(dd, bytes) else dd.encode('latin-1'))"
          ".decode('utf8', errors = 'replace' if replace else 'strict')"),
         ("p = ''.join(payload)", "p = b''.join(payload)"),
         ("self.runCase.onPong(payload)", "self.runCase.onPong(_text(payload))"),
         ("self.runCase.onMessage(msg, binary)",
          "self.runCase.onMessage(msg if _raw(self.runCase) else _text(msg), binary)"),
         ("debug = debug, debugCodePaths = debug", ""),
         ("self.debug", "False"),
         ("ll.encode('utf8')", "ll"),
         ("json.dumps(case, sort_keys", "json.dumps(case, default = _text, sort_keys"),
         ("class FuzzingProtocol:", BORDER),
         ("(FuzzingProtocol, WebSocketClientProtocol)", "(FuzzingProtocol, _Border, WebSocketClientProtocol)"),
         ("(FuzzingProtocol, WebSocketServerProtocol)", "(FuzzingProtocol, _Border, WebSocketServerProtocol)"))
    source = path.read_text()
    source = re.sub(r"__init__\(self, \)", "__init__(self)", source)
    source = re.sub(r"\.write\(\((.*)\)\.encode\(\"utf-8\"\)\)", r".write((\1))", source)
    path.write_text(source)


stage, package = sys.argv[1], pathlib.Path(sys.argv[2])
{"before": before, "after": after}[stage](package)
