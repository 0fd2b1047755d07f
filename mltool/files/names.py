"""Image names as text: what a file system, UTF-8 and a terminal each allow."""

import re


def utf8_name(raw: bytes) -> bytes:
    """A file name as UTF-8: bytes that are not UTF-8 become `%XX`."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="surrogateescape")
        escaped = re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)
        return escaped.encode()
    return raw


def printable(text: str) -> str:
    """The text with control and other invisible characters escaped, safe for a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
