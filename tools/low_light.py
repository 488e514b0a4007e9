"""How much worse a scene localises in low light: a recording by day, and the same frames under lamps.

Each light is drawn at random as for training in low light (dusk with noise to one lamp in the dark) and stays for the
whole recording; every frame has noise of its own. Prints medians, and by how much they are worse than by day.

    python tools/low_light.py scenes/map ../shared/data/redkitchen --split test [--lights 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.preprocess import to_rgb
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.derived import SomeFrames
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.evaluate import Evaluation, evaluate
from localizer_ros.evaluation.open_scene import open_scene
from localizer_ros.training.augmentation import LowLight, in_low_light, random_low_light


class DarkSource(SomeFrames):
    """A recording in another light.

    Args:
        source: by day; frames without a ground-truth pose stay as they are. Its lens may not distort.
        low_light: the lamps.
        seed: of the noise.
    """

    def __init__(self, source: FrameSource, low_light: LowLight, seed: int) -> None:
        if source.camera.distorted:
            raise SourceError(f"{source.path}: expected a camera without distortion")
        super().__init__(source, range(len(source.records)), source.records)
        self._low_light, self._seed = low_light, seed

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        frame, T_map_cam = super().read(index), self.records[index].T_map_cam
        if T_map_cam is None:
            return frame
        image = to_rgb(frame.image)
        noise = np.random.default_rng([self._seed, index]).standard_normal(image.shape, dtype=np.float32)
        dark = in_low_light(image, frame.camera, T_map_cam.R, self._low_light, noise)
        return dataclasses.replace(frame, image=dark)

    def split(self, name: str) -> DarkSource:
        """See ``FrameSource.split``."""
        return DarkSource(self._source.split(name), self._low_light, self._seed)


def figures(run: Evaluation) -> dict[str, Any]:
    """What is compared: answers before and after smoothing."""
    return {
        kind: {
            "frames": metrics.frames,
            "answered": metrics.answered,
            "median_t_m": metrics.median_t_m,
            "median_r_deg": metrics.median_r_deg,
            "wrong": metrics.wrong,
        }
        for kind, metrics in (("smoothed", run.metrics), ("raw", run.raw))
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--lights", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the localizer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    day = open_source(arguments.recording)
    sources: list[tuple[str, FrameSource]] = [("day", day)]
    for seed in range(arguments.lights):
        lamps = random_low_light(np.random.default_rng(seed))
        sources.append((f"light {seed}, mean level {lamps.mean:.3f}", DarkSource(day, lamps, seed)))
    found: dict[str, Any] = {}
    for name, source in sources:
        with open_scene(arguments.scene, load_config(LocalizerConfig, None, arguments.set)) as opened:
            found[name] = figures(evaluate(opened, source, arguments.split))
        for kind in ("smoothed", "raw"):
            now, by_day = found[name][kind], found["day"][kind]
            if now["median_t_m"] is None or by_day["median_t_m"] is None:
                print(f"{name}, {kind}: {now['answered']} of {now['frames']} answered", flush=True)
                continue
            worse = [now[key] / by_day[key] for key in ("median_t_m", "median_r_deg")]
            print(
                f"{name}, {kind}: {now['answered']} of {now['frames']} answered, {100 * now['median_t_m']:.2f} cm, "
                f"{now['median_r_deg']:.3f} deg, {worse[0]:.2f} and {worse[1]:.2f} times that of the day, "
                f"{now['wrong'] or 0} wrong",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
