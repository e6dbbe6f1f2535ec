"""Ten million rows through each reader: seconds and peak memory of a fresh process, with the answer checked.

The bound is 20 s and 4 GB a file. Run: python benchmarks/readers.py [rows]
"""

import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORKERS = 256
BLOCK = 100_000
SECONDS, GIGABYTES = 20.0, 4.0


def make_blocks(rows: int):
    """Whole seconds and microseconds: worker i computes i + 1 ms, over and over; rows in the order of ends."""
    number = np.arange(rows)
    for first in range(0, rows, BLOCK):
        turn, worker = np.divmod(number[first : first + BLOCK], WORKERS)
        yield worker, turn.astype(float), turn + (worker + 1) * 1e-3, number[first : first + BLOCK]


def write_csv(path: Path, rows: int, wide: bool) -> None:
    with path.open("w") as file:
        file.write(
            "worker,start,end" + (",pulled_version,applied_version,compute,download,upload,grad_norm\n" * wide or "\n")
        )
        for worker, start, end, number in make_blocks(rows):
            lines = zip(worker.tolist(), start.tolist(), end.tolist(), number.tolist(), strict=True)
            if wide:
                file.writelines(f"worker-{w},{s!r},{e!r},{n},{n + 255},{e - s!r},,,{e!r}\n" for w, s, e, n in lines)
            else:
                file.writelines(f"worker-{w},{s!r},{e!r}\n" for w, s, e, _ in lines)


def write_jsonl(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for worker, start, end, _ in make_blocks(rows):
            lines = zip(worker.tolist(), start.tolist(), end.tolist(), strict=True)
            file.writelines(f'{{"worker": "worker-{w}", "start": {s!r}, "end": {e!r}}}\n' for w, s, e in lines)


def write_parquet(path: Path, rows: int) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([("worker", "string"), ("start", "float64"), ("end", "float64")])
    with parquet.ParquetWriter(path, schema) as writer:
        for worker, start, end, _ in make_blocks(rows):
            labels = np.char.add("worker-", worker.astype(str))
            writer.write_table(pyarrow.table([labels.tolist(), start, end], schema=schema))


def read(path: str, rows: int, arrow: bool) -> None:
    """In a process of its own: read, check, print."""
    if not arrow:
        sys.modules["pyarrow"] = None  # type: ignore[assignment]
    from stalewise.traces import read_trace

    begun = time.perf_counter()
    trace = read_trace(path)
    seconds = time.perf_counter() - begun
    by_worker = trace.by_worker()
    both = time.perf_counter() - begun
    assert len(trace) == rows
    assert trace.notes == (), trace.notes
    assert [len(v) for v in by_worker.values()] == np.bincount(np.arange(rows) % WORKERS).tolist()
    for i, values in enumerate(by_worker.values()):
        np.testing.assert_allclose(values, (i + 1) * 1e-3, atol=1e-9)
    print(seconds, both, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main(rows: int) -> int:
    arrow = importlib.util.find_spec("pyarrow") is not None
    jobs = [
        ("CSV, 3 columns", lambda p: write_csv(p, rows, False), False),
        ("CSV, 9 columns", lambda p: write_csv(p, rows, True), False),
    ]
    jobs += [("JSON Lines", lambda p: write_jsonl(p, rows), False)]
    if arrow:
        jobs += [(f"{name}, PyArrow", write, True) for name, write, _ in jobs[:2]]
        jobs += [("Parquet", lambda p: write_parquet(p, rows), True)]
    late = 0
    print(f"{rows} rows, {WORKERS} workers\n{'':<26}{'read':>8}{'+ by_worker':>13}{'peak':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, write, with_arrow in jobs:
            path = Path(folder) / "log"
            write(path)
            command = [sys.executable, __file__, "--read", str(path), str(rows), str(int(with_arrow))]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, both, peak = map(float, out.split())
            over = seconds > SECONDS or peak > GIGABYTES
            late += over
            print(f"{name:<26}{seconds:>6.1f} s{both:>11.1f} s{peak:>7.2f} GB{'  over the bound' if over else ''}")
    return late


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")
    else:
        sys.exit(bool(main(int(sys.argv[1]) if sys.argv[1:] else 10_000_000)))
