"""The elements of a JSON array, cut out of a stream without reading the array as a whole.

Only strings and brackets are looked at here; whoever gets the text of an element finds out what it says.
That keeps one decoder for all JSON, a limit on what is held, and no price on deep nesting.
"""

import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Final

from embedq_core.errors import SourceError

_BLOCK: Final = 1 << 20
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
# An object that holds no more than one level of others: most rows, at one go.
_FLAT: Final = re.compile(
    rb'\{(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"|[{\[](?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+[}\]])*+\}', re.DOTALL
)
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK: Final = re.compile(rb'["{}\[\]]')
_SCALAR: Final = re.compile(rb'[^ \t\r\n,"{}\[\]]*+')


def elements(stream: BufferedReader, name: str, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """The line and the text of every element; None for the text of one of more than `longest` bytes.

    Raises SourceError where the stream is no array, or breaks off, or is no JSON between two elements.
    """
    scan = _Scan(stream, longest)
    first = scan.next_byte()
    if first is None:
        return
    if first != b"[":
        raise _no_array(name, first)
    separator = scan.next_byte() if scan.peek() == b"]" else b","
    while separator == b",":
        scan.peek()
        line = scan.line
        try:
            text = scan.element()
        except EOFError:
            raise scan.broken(name, "what begins here isn't closed before the file ends", line) from None
        if text == b"":
            raise scan.broken(name, "a value is missing")
        yield line, text
        separator = scan.next_byte()
    if separator != b"]":
        raise scan.broken(name, "the array isn't closed" if separator is None else "a comma is missing")
    if scan.peek() is not None:
        raise scan.broken(name, "something stands after the array")


def _no_array(name: str, first: bytes) -> SourceError:
    if first == b"{":
        return SourceError(
            f"{name} is a JSON object: an array of objects is needed, or, with --format nl, an object on every line"
        )
    return SourceError(f"{name} isn't a JSON array of objects, which is what is needed")


class _Scan:
    """A window on the stream: everything before `_at` is done with, `line` is the line of `_at`."""

    def __init__(self, stream: BufferedReader, longest: int) -> None:
        self._stream = stream
        self._longest = longest
        self._data = b""
        self._at = 0
        self.line = 1

    def broken(self, name: str, problem: str, line: int | None = None) -> SourceError:
        """The error that ends the reading, here or at `line`."""
        return SourceError(f"{name} line {line or self.line}: not valid JSON, {problem}; the rest can't be read")

    def next_byte(self) -> bytes | None:
        """The next byte that isn't white space, taken, or None at the end."""
        byte = self.peek()
        if byte is not None:
            self._at += 1
        return byte

    def peek(self) -> bytes | None:
        """The next byte that isn't white space, left where it is, or None at the end."""
        while True:
            match = _SPACE.match(self._data, self._at)
            self._pass_to(match.end() if match else self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return None

    def element(self) -> bytes | None:
        """The text of the element that begins here, b'' where none does, None for one that is too long.

        Raises EOFError where the stream ends in the middle of it.
        """
        match = _FLAT.match(self._data, self._at)
        if match:
            return self._taken(match.end())
        if self._at == len(self._data):
            return b""
        if self._data[self._at : self._at + 1] in (b'"', b"{", b"["):
            return self._bracketed()
        return self._scalar()

    def _scalar(self) -> bytes | None:
        dropped = False
        while True:
            match = _SCALAR.match(self._data, self._at)
            end = match.end() if match else self._at
            if end < len(self._data):
                text = self._taken(end)
                return None if dropped else text
            if end - self._at > self._longest:
                dropped = True
                self._pass_to(end)
            if not self._more():
                raise EOFError

    def _bracketed(self) -> bytes | None:
        depth = 0
        in_string = dropped = False
        place = self._at
        while True:
            place, depth, in_string, done = _advanced(self._data, place, depth, in_string=in_string)
            if done:
                text = self._taken(place)
                return None if dropped else text
            if place - self._at > self._longest:
                dropped = True
                self._pass_to(place)
            kept = place - self._at
            if not self._more():
                raise EOFError
            place = self._at + kept

    def _taken(self, end: int) -> bytes | None:
        text = self._data[self._at : end] if end - self._at <= self._longest else None
        self._pass_to(end)
        return text

    def _pass_to(self, end: int) -> None:
        self.line += self._data.count(b"\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        kept = self._data[self._at :]
        # As much again as is kept: an element over many blocks is copied a few times, not once a block.
        new = self._stream.read(len(kept)) if len(kept) > _BLOCK else self._stream.read1(_BLOCK)
        self._data, self._at = kept + new, 0
        return bool(new)


def _advanced(data: bytes, place: int, depth: int, *, in_string: bool) -> tuple[int, int, bool, bool]:
    """Follow a value from `place`: where that leads, how deep, whether in a string, whether it is over."""
    while True:
        if in_string:
            match = _STRING.match(data, place)
            place = match.end() if match else place
            # What is left is the end of the data, or a backslash whose other half is still to come.
            if data[place : place + 1] != b'"':
                return place, depth, True, False
            place, in_string = place + 1, False
        else:
            mark = _MARK.search(data, place)
            if mark is None:
                return len(data), depth, False, False
            place = mark.end()
            byte = mark.group()
            in_string = byte == b'"'
            if not in_string:
                depth += 1 if byte in b"{[" else -1
        if depth == 0 and not in_string:
            return place, 0, False, True
