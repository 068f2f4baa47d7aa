"""What may be wrong with bytes, text, JSON, TOML and arrays, drawn at random."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import numpy.typing as npt

from fsdcore.messages.segments import Arrays

_Array = npt.NDArray[Any]

_EDGES = [0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
_EDGES += [2**40, 2**63 - 1, 2**63, 2**64 - 1]
_VALUES: list[Any] = [None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40, 10**400, 1.5, -0.0, 1e308]
_VALUES += ["", "x", "x" * 3_000, "é", "\x00", "\x1b[2J", "../..", "a\nb", "nan", "1e999"]
_VALUES += [[], [[]], [1] * 50, {}, {"a": 1}, {"": None}]
_NUMBERS = [b"1", b"0", b"-1", b"9" * 20, b"1e5", b"nan", b"inf", b"0x1", b" 1", b"1_0", b"", b"1e-400", b"1e400"]
_NUMBERS += ["١".encode(), b"1.5.5", b"+1", b"1 2"]
_TOML = [
    b"-1",
    b"1e999",
    b"nan",
    b"inf",
    b"'x'",
    b"''",
    b"[]",
    b"{}",
    b"true",
    b"1979-05-27",
    b"9" * 30,
    b"0",
    b"[1,2]",
]
_TOML += [
    b"1" + b"0" * 400,
    b"9" * 5_000,
    b"[" * 2_000 + b"]" * 2_000,
    b"{a=1}",
    b"0.1",
    b"'../x'",
    b"'\\u001b'",
    b"\xff",
]
_KINDS = ["int8", "uint8", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64", "bool", "complex64"]
_FLOATS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1.0, 1e-45]
# How many bytes a change adds, repeats or cuts.
_MOST = 16


class Draws(random.Random):
    """Random choices; the same ones for the same seed."""

    def chance(self, share: float) -> bool:
        """True in that share of all cases."""
        return self.random() < share

    def damaged(self, data: bytes) -> bytes:
        """Bytes with one to four changes: bits, bytes, lengths and parts, anywhere."""
        changed = bytearray(data or b"\0")
        for _ in range(self.randint(1, 4)):
            self._change(changed, self.randrange(len(changed)))
            changed = changed or bytearray(b"\0")
        return bytes(changed)

    def _change(self, data: bytearray, at: int) -> None:
        match self.randrange(8):
            case 0:
                data[at] ^= 1 << self.randrange(8)
            case 1:
                data[at] = self.choice([0, 1, 128, 255, self.randrange(256)])
            case 2:
                del data[at : at + self.randint(1, _MOST)]
            case 3:
                data[at:at] = self.randbytes(self.randint(1, _MOST))
            case 4:
                del data[at:]
            case 5:
                size = self.choice([1, 2, 4, 8])
                data[at : at + size] = (self.choice(_EDGES) % (1 << 8 * size)).to_bytes(size, "little")
            case 6:
                start = self.randrange(len(data))
                data[at : at + _MOST] = data[start : start + self.randint(1, _MOST)]
            case _:
                data += data[at : at + 64]

    def json(self, sound: Any) -> bytes:
        """JSON with one to three values, names or lengths that are others; now and then no JSON at all."""
        changed = json.loads(json.dumps(sound))
        for _ in range(self.randint(1, 3)):
            changed = self._json_changed(changed)
        text = json.dumps(changed).encode()
        match self.randrange(20):
            case 0 | 1 | 2 | 3:
                return self.damaged(text)
            case 4:
                return self._put_in(text, b'"', b"\xff")
            case 5:
                return self._put_in(text, b":", b"[" * 3_000 + b"]" * 3_000)
            case 6:
                return b"\xef\xbb\xbf" + text
        return text

    def _put_in(self, text: bytes, after: bytes, more: bytes) -> bytes:
        at = text.find(after, self.randrange(len(text))) + 1
        return text[:at] + more + text[at:]

    def _json_changed(self, node: Any) -> Any:
        """The node, or one below it, replaced, left out or repeated."""
        if not (isinstance(node, dict | list) and node) or self.chance(0.2):
            return self._other(node)
        place = self.choice(list(node)) if isinstance(node, dict) else self.randrange(len(node))
        if self.chance(0.1):
            del node[place]
        elif isinstance(node, list) and self.chance(0.1):
            node.insert(place, node[place])
        else:
            node[place] = self._json_changed(node[place])
        return node

    def _other(self, node: Any) -> Any:
        if isinstance(node, int) and self.chance(0.5):
            return node + self.choice([-1, 1, -100, 100, 2**31, 2**62])
        return copy.deepcopy(self.choice(_VALUES))

    def lines(self, text: bytes) -> bytes:
        """Lines of numbers between tabs, one of them wrong, there twice, missing or the last."""
        lines = text.split(b"\n")
        at = self.randrange(len(lines))
        match self.randrange(7):
            case 0:
                lines[at] = self.damaged(lines[at])
            case 1:
                lines[at] = b"\t".join(self.choices(_NUMBERS, k=self.choice([1, 2, 3, 3, 3, 4])))
            case 2:
                lines.insert(at, self.choice(lines))
            case 3:
                del lines[at]
            case 4:
                return self.damaged(text)
            case 5:
                lines[at] += self.choice([b"\r", b" ", b"\t", b"#x", b"\x00", b"\xff"])
            case _:
                del lines[at + 1 :]
        return b"\n".join(lines)

    def toml(self, text: str) -> bytes:
        """TOML with a value that is another, or a line that is missing or in another place."""
        if self.chance(0.2):
            return self.damaged(text.encode())
        lines = text.encode().split(b"\n")
        at = self.randrange(len(lines))
        lines[at] = lines[at].partition(b"=")[0] + b"=" + self.choice(_TOML)
        if self.chance(0.25):
            del lines[at]
        if self.chance(0.25):
            lines.insert(self.randrange(len(lines) + 1), self.choice(lines or [b""]))
        return b"\n".join(lines)

    def arrays(self, sound: Arrays) -> Arrays:
        """Arrays of which one to three are others, missing, or under another name."""
        changed = dict(sound)
        for name in self.choices(list(sound), k=self.randint(1, 3)):
            array = changed.pop(name, sound[name])
            match self.randrange(16):
                case 0:
                    pass
                case 1:
                    changed[f"{name}x"] = array
                case 2:
                    changed[name] = self.choice(list(sound.values()))
                case _:
                    changed[name] = self.array(array)
        return changed

    def array(self, sound: _Array) -> _Array:
        """The array in another type, of another shape or length, or with other values."""
        flat = np.array(sound).reshape(-1)
        match self.randrange(9):
            case 0 if sound.dtype.kind not in "US":
                return np.array(sound).astype(self.choice(_KINDS))
            case 1:
                return flat[: self.randrange(flat.size + 1)]
            case 2:
                return np.concatenate([flat, flat[:1].repeat(self.randint(1, 20))])
            case 3:
                return flat.reshape(1, *sound.shape)
            case 4:
                return np.array(flat[0] if flat.size else 0, sound.dtype)
            case 5:
                return flat.reshape(sound.shape)[..., ::-1].copy() if sound.ndim else flat
        return self._values(flat).reshape(sound.shape) if flat.size else flat

    def _values(self, flat: _Array) -> _Array:
        for at in self.choices(range(flat.size), k=self.randint(1, 3)):
            if flat.dtype.kind in "iu":
                limits, near = np.iinfo(flat.dtype), int(flat[at]) + self.choice([-1, 1])
                flat[at] = min(max(self.choice([*_EDGES, -1, -2, -(2**31), near]), int(limits.min)), int(limits.max))
            elif flat.dtype.kind == "f":
                flat[at] = self.choice(_FLOATS)
            elif flat.dtype.kind == "U":
                words = flat.astype(object)
                words[at] = self.choice(["", "x", "-1", "9" * 30, "0", "\x1b[0m", "csr", "bsr"])
                return words.astype(str)
        return flat
