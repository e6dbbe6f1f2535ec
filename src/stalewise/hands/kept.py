"""Answers on disk, one file each, by what they depend on."""

import hashlib
import importlib.metadata
import json
import pickle
from pathlib import Path
from typing import Any

from stalewise.errors import InputError
from stalewise.study import BUILT_IN, Study
from stalewise.trajectory import load_json, write_atomically


class Kept:
    """Answers in a folder.

    Args:
        folder: Where; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: Any) -> Any:
        """The answer, or None where there is none that can be read."""
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            content = load_json(path, "kept answer")
        except InputError:  # cut short or written over: done again
            return None
        return content.get("answer") if isinstance(content, dict) and content.get("key") == _plain(key) else None

    def put(self, key: Any, answer: Any) -> None:
        """Keep an answer."""
        path = self._path(key)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"key": _plain(key), "answer": answer}))

    def _path(self, key: Any) -> Path | None:
        if self._folder is None or key is None:
            return None
        version = importlib.metadata.version("stalewise")
        digest = hashlib.sha256(json.dumps([version, _plain(key)], sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:24]}.json"


def identity(study: Study) -> dict[str, Any]:
    """What a study's answers depend on: all that stands in it, and the contents of the files that it names.

    Of a folder of data names, sizes and dates count; of your own module its text, not what it imports.
    """
    files = dict(study.cluster.sources)
    workload = study.workload
    if workload.data_path is not None:
        files["data"] = workload.data_path
    if workload.landscape_path is not None:
        files["landscape"] = workload.landscape_path
    if not workload.is_quadratic and workload.kind not in BUILT_IN:
        files["module"] = workload.folder / f"{workload.kind.partition(':')[0].partition('.')[0]}.py"
    law = study.cluster._law
    given = None if law is None else hashlib.sha256(pickle.dumps(law)).hexdigest()
    return {
        "study": study.as_dict(),
        "law": given,
        "files": {name: _fingerprint(path) for name, path in sorted(files.items())},
    }


def _fingerprint(path: Path) -> Any:
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return None
    return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(path.iterdir())]


def _plain(key: Any) -> Any:
    return json.loads(json.dumps(key))
