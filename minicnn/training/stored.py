"""JSON files, checked before they are used."""

import json
from pathlib import Path
from typing import Any

from minicnn.expected import check
from minicnn.files import atomic_write

MAX_JSON = 64 * 1024 * 1024  # bytes


def read_json(path: Path, expected: Any) -> dict[str, Any]:
    """Return the mapping in a JSON file, ``expected`` as for :func:`check`; ValueError for one that is damaged."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        check(content, expected, "its content" if not isinstance(content, dict) else "")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, atomically; ValueError for NaN and infinities, which JSON does not have."""
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")
