"""The how-to that leads from any form of recording to an answer: its commands are run on a drive in all these forms."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from documents import DOCS
from page_runner import run_page
from recordings_in_hand import write_all

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig

# A round of the room: every other frame is mapped, every tenth asked.
DRIVE = {"duration_s": 18, "fps": 3, "width_px": 240, "height_px": 180}


@pytest.mark.slow
def test_two_commands_lead_from_every_form_to_an_answer(tmp_path: Path) -> None:
    write_all(SimulatedSource(config_from_dict(WorldConfig, DRIVE)), tmp_path)
    run_page(DOCS / "howto" / "your-recording.md", tmp_path)
    for report in ("wheels-report", "photos-report", "video-report"):
        with (tmp_path / report / "frames.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 5
        assert sum(row["raw_x"] != "" for row in rows) >= 4
