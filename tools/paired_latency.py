"""Latency of old code and of new, in one run: blocks of the same frames go to each in turn.

    git worktree add ../old COMMIT
    (cd ../old && python -m localizer_ros.cli map $R --out scenes/old)
    python tools/paired_latency.py ../old . $R --old-scene ../old/scenes/old --new-scene scenes/new

Each code runs in a process of its own, on a scene that it has made itself of the recording, and keeps its localizer
from block to block. What else the machine does hits both alike: the ratios mean something where the times do not.

tracked     Frames come at the recording's own rate, as on a robot: work beside the frames has its time and no more.
            Frames with a pose by tracking count.
searched    Every frame is searched in full, one after the other.
regressor   What a network's frame costs beside the network; with --old-regressor and --new-regressor. In place of the
            time of a frame: what it took less what its network call took.

Prints one JSON object: frames, p50 and p99 in milliseconds of each code, what a frame of a block costs its process's
threads together (cpu, beside the frames as well), and the ratios of new to old. With --top 10
the first frames are run once more under cProfile, and the ten functions are added in which each code spends the most,
those that they call left out: the widest tops of a flame graph. Threads beside the frame's own are not looked into.
With --page FILE the figures are put into that page of results, of which tools/results_pages.py makes a document.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The package is imported by the workers alone: each imports the code that it is to time.

SETTINGS = {"tracked": "", "searched": "{structure}tracking.enabled=false", "regressor": "{refine}"}
# Whose versions times depend on.
PACKAGES = ("numpy", "opencv-python-headless", "openvino", "gtsam")
# The first frames of a block meet caches that the other code has filled.
LEFT_OUT = 2
# Frames that are profiled: what a frame does is much the same each time.
PROFILED = 100
# Longer than this nobody waits for the next frame: sequences of a recording lie hours apart.
LONGEST_PAUSE_S = 0.5


def worker(kind: str, scene: str, source: str, split: str) -> None:
    """Process the frames of each line ``FIRST LAST TOP`` and print ``[cpu_ms, [[counts, ms], ...]]`` of them; where TOP
    is not 0 the so many functions ``[[name, share], ...]`` in which those that count have spent the most."""
    structure, refine = "", "refine=none"
    settings = "localizer_ros.core.config"
    if importlib.util.find_spec("localizer_ros.core.methods") is None:  # code of before November 28th
        runtime = schema = importlib.import_module(settings)
        structure, refine = "structure.", ""
    else:
        # As the node does, before NumPy is imported.
        importlib.import_module("localizer_ros.core.threads").one_thread_for_linear_algebra()
        runtime, schema = (importlib.import_module(f"{settings}.{part}") for part in ("runtime", "schema"))
    from localizer_ros.datasets.source import open_source
    from localizer_ros.localization.localizer import open_localizer

    setting = SETTINGS[kind].format(structure=structure, refine=refine)
    config = schema.load_config(runtime.LocalizerConfig, None, [setting] if setting else [])
    frames = open_source(Path(source)).split(split)
    localizer = open_localizer(Path(scene), config, threaded=True)
    print(len(frames.records), flush=True)
    for line in sys.stdin:
        first, last, top = map(int, line.split())
        block = [frames.read(index) for index in range(first, last)]
        spent: list[tuple[bool, float]] = []
        profiles: list[cProfile.Profile] = []
        due_s, cpu_s = time.perf_counter(), time.process_time()
        for n, frame in enumerate(block):
            if kind == "tracked":
                gap_s = 0.0 if n == 0 else (frame.stamp_ns - block[n - 1].stamp_ns) * 1e-9
                due_s = max(time.perf_counter(), due_s + min(gap_s, LONGEST_PAUSE_S))
                time.sleep(max(0.0, due_s - time.perf_counter()))
            profile = cProfile.Profile()
            began_s = time.perf_counter()
            output = profile.runcall(localizer.process, frame) if top else localizer.process(frame)
            ms = (time.perf_counter() - began_s) * 1e3
            counts = kind != "tracked" or (
                output.absolute is not None and output.absolute.source == "tracking"
            )
            if kind == "regressor":
                ms -= output.timings_ms["network"]
            spent.append((counts, ms))
            profiles += [profile] if counts and top and n >= LEFT_OUT else []
        cpu_ms = (time.process_time() - cpu_s) * 1e3
        print(json.dumps(most_spent(profiles, top) if top else [cpu_ms, spent]), flush=True)
    localizer.close()


def most_spent(profiles: list[cProfile.Profile], top: int) -> list[tuple[str, float]]:
    """Names of functions and their shares of the time, what they call left out; those with the largest shares."""
    spent: dict[str, float] = {}
    for profile in profiles:
        for entry in profile.getstats():
            code = entry.code
            if isinstance(code, str):
                # <method 'dot' of 'numpy.ndarray' objects>, <built-in method numpy.array>, <resize>
                quoted = re.search(r"'(\w+)'", code)
                name = quoted[1] if quoted else code.strip("<>").split()[-1]
            else:
                name = f"{Path(code.co_filename).stem}.{code.co_name}"
            spent[name] = spent.get(name, 0.0) + entry.inlinetime
    total = sum(spent.values())
    return [(name, spent[name] / total) for name in sorted(spent, key=lambda name: -spent[name])[:top]]


class Code:
    """One of the two codes, in a process of its own.

    Args:
        folder: its working tree.
        arguments: of :func:`worker`.
    """

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._folder = folder
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        self.frames = int(self._answer())
        self.spent: dict[int, list[float]] = {}
        self.cpu_ms = 0.0
        self.processed = 0

    def run(self, first: int, last: int) -> None:
        """Process a block; its first frames are not counted."""
        cpu_ms, spent = self._ask(first, last, 0)
        self.cpu_ms += cpu_ms
        self.processed += len(spent)
        for n, (counts, ms) in enumerate(spent):
            if counts and n >= LEFT_OUT:
                self.spent.setdefault(first + n, []).append(ms)

    def profile(self, last: int, top: int) -> dict[str, float]:
        """Shares of the functions in which the first frames spend the most."""
        return {name: round(share, 4) for name, share in self._ask(0, last, top)}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, first: int, last: int, top: int) -> list[Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {last} {top}\n")
        self._process.stdin.flush()
        answer: list[Any] = json.loads(self._answer())
        return answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the code in {self._folder} ended with {self._process.wait()}")
        return line


@contextmanager
def opened(folder: Path, arguments: list[str]) -> Iterator[Code]:
    """A code, opened and in the end closed."""
    code = Code(folder, arguments)
    try:
        yield code
    finally:
        code.close()


def compared(old: Code, new: Code, frames: int, block: int, rounds: int) -> dict[str, Any]:
    """What each took for the frames that count with both."""
    import numpy as np

    for _ in range(rounds):
        for n, first in enumerate(range(0, frames, block)):
            for code in (old, new) if n % 2 == 0 else (new, old):
                code.run(first, min(first + block, frames))
    both = sorted(old.spent.keys() & new.spent.keys())
    if not both:
        raise SystemExit("no frame counts with both codes")
    found: dict[str, Any] = {"frames": len(both)}
    for name, code in (("old", old), ("new", new)):
        p50, p99 = np.percentile([ms for frame in both for ms in code.spent[frame]], (50, 99))
        cpu = code.cpu_ms / code.processed
        found[name] = {key: round(float(ms), 2) for key, ms in (("p50", p50), ("p99", p99), ("cpu", cpu))}
    found["ratio"] = {key: round(found["new"][key] / found["old"][key], 3) for key in found["new"]}
    return found


def into_page(path: Path, results: dict[str, Any], old: Path, new: Path) -> None:
    """Put figures into a page of results, with the commits and the versions that they are of."""
    page = json.loads(path.read_text(encoding="utf-8"))
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name, folder in (("commit before", old), ("commit", new)):
        command = ("git", "-C", str(folder), "rev-parse", "--short", "HEAD")
        versions[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    rows = page["runs"]["paired"]["rows"]
    page["runs"]["paired"]["versions"] = versions
    for kind, found in results.items():
        rows[kind].update({key: value for key, value in found.items() if key != "top"})
        top = found.get("top", {"old": {}, "new": {}})
        for rank, pair in enumerate(zip(top["old"].items(), top["new"].items(), strict=True), 1):
            old_code, new_code = ({"name": f"`{name}`", "share": share} for name, share in pair)
            rows[f"{kind}_{rank}"] = {"rank": rank, "old": old_code, "new": new_code}
    path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="working tree of the old code")
    parser.add_argument("new", type=Path, help="working tree of the new code")
    parser.add_argument("source", type=Path, help="recording")
    for name in ("old-scene", "new-scene", "old-regressor", "new-regressor"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--block", type=int, default=30, help="frames of a block")
    parser.add_argument("--rounds", type=int, default=2, help="runs through the recording")
    parser.add_argument("--frames", type=int, default=10**9, help="at most so many of the recording")
    parser.add_argument("--passes", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="some of them")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page of results that takes the figures")
    parser.add_argument("--top", type=int, default=0, help="functions to name")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for kind in args.passes:
        scenes = (
            (args.old_regressor, args.new_regressor)
            if kind == "regressor"
            else (args.old_scene, args.new_scene)
        )
        if None in scenes:
            continue
        rest = [str(args.source.resolve()), args.split]
        with (
            opened(args.old, [kind, str(scenes[0].resolve()), *rest]) as old,
            opened(args.new, [kind, str(scenes[1].resolve()), *rest]) as new,
        ):
            frames = min(old.frames, args.frames)
            results[kind] = compared(old, new, frames, args.block, args.rounds)
            if args.top:
                profiled = min(frames, PROFILED)
                results[kind]["top"] = {
                    "old": old.profile(profiled, args.top),
                    "new": new.profile(profiled, args.top),
                }
        print(f"{kind}: {results[kind]}", file=sys.stderr, flush=True)
    print(json.dumps(results))
    if args.page is not None:
        into_page(args.page, results, args.old, args.new)


if __name__ == "__main__":
    main()
