"""Append one JSON line per finished run to a table of results, and skip what is there.

mltool evaluate test.h5 --json | python record.py results/omniglot.jsonl run=ours seed=0
python record.py --done results/omniglot.jsonl run=ours seed=0     exit 0 if the line is there
"""

import json
import sys
from pathlib import Path

Key = dict[str, int | float | str]


def parsed(words: list[str]) -> Key:
    """`run=ours seed=0` as a dictionary, numbers as numbers."""
    return {key: number(value) for key, _, value in (word.partition("=") for word in words)}


def number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def has(path: Path, key: Key) -> bool:
    """Whether a line with this key was recorded."""
    lines = path.read_text().splitlines() if path.exists() else []
    return any(key.items() <= json.loads(line).items() for line in lines)


def main() -> int:
    words = sys.argv[1:]
    asking = words[0] == "--done"
    path, key = Path(words[asking]), parsed(words[1 + asking :])
    if asking:
        return 0 if has(path, key) else 1
    line = json.dumps(key | json.load(sys.stdin))
    path.parent.mkdir(exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
