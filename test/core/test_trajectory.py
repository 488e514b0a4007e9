"""Trajectories: construction, interpolation and association by time, TUM files."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import (
    UNKNOWN_SCALE,
    Trajectory,
    is_of_unknown_scale,
    seconds_to_ns,
)
from localizer_ros.core.types import SourceError

START_NS = 1_700_000_000_123_456_789  # a float of seconds would lose the last two digits


def straight(count: int, step_ns: int = 100_000_000) -> Trajectory:
    """Moves 1 m and turns 0.1 rad about y a step."""
    return Trajectory.from_items(
        (
            START_NS + i * step_ns,
            SE3(SE3.exp([0.0, 0.1 * i, 0.0, 0.0, 0.0, 0.0]).R, np.array([i, 0.0, 0.0])),
        )
        for i in range(count)
    )


def test_from_items_sorts_and_keeps_the_first_of_equal_stamps() -> None:
    a, b, c = (SE3(np.eye(3), np.full(3, float(i))) for i in range(3))
    trajectory = Trajectory.from_items([(20, b), (10, a), (20, c)])
    assert trajectory.stamps_ns.tolist() == [10, 20]
    assert trajectory.poses == (a, b)


def test_length_and_positions() -> None:
    trajectory = straight(5)
    assert trajectory.length_m == pytest.approx(4.0)
    assert trajectory.positions.shape == (5, 3)
    empty = Trajectory.from_items([])
    assert (len(empty), empty.length_m, empty.positions.shape) == (0, 0.0, (0, 3))
    assert empty.at(0) is None
    assert empty.nearest([0], 10) == [None]


@pytest.mark.parametrize("stamps", [[0, 0], [1, 0], [0, 1, 2]])
def test_refuses_stamps_that_do_not_increase_or_fit(stamps: list[int]) -> None:
    with pytest.raises(ValueError, match="trajectory"):
        Trajectory(np.array(stamps, dtype=np.int64), (SE3.identity(), SE3.identity()))


def test_at_interpolates_between_neighbours_only() -> None:
    trajectory = straight(4)
    T = trajectory.at(START_NS + 125_000_000)
    assert T is not None
    # Stamps are integers, so the fraction is exact to rounding of one division.
    np.testing.assert_allclose(T.t, [1.25, 0.0, 0.0], atol=1e-12)
    assert SE3.identity().angle_to(T) == pytest.approx(0.125)
    for stamp, pose in zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True):
        assert trajectory.at(stamp) is pose
    assert trajectory.at(START_NS - 1) is None
    assert trajectory.at(int(trajectory.stamps_ns[-1]) + 1) is None


def test_at_does_not_bridge_a_gap() -> None:
    trajectory = straight(3, step_ns=1_000_000_000)
    assert trajectory.at(START_NS + 500_000_000) is None
    assert trajectory.at(START_NS + 500_000_000, max_gap_ns=1_000_000_000) is not None


def test_nearest_associates_within_the_tolerance() -> None:
    trajectory = straight(3)
    ms = 1_000_000
    stamps = [
        START_NS - 30 * ms,
        START_NS + 40 * ms,
        START_NS + 60 * ms,
        START_NS + 205 * ms,
        START_NS + 900 * ms,
    ]
    assert trajectory.nearest(stamps, 45 * ms) == [0, 0, 1, 2, None]


def test_tum_round_trip_is_exact_in_time(tmp_path: Path, rng: np.random.Generator) -> None:
    poses = [SE3.exp(np.concatenate([rng.normal(size=3), 100 * rng.normal(size=3)])) for _ in range(50)]
    written = Trajectory.from_items((START_NS + 33_333_333 * i, T) for i, T in enumerate(poses))
    written.write_tum(tmp_path / "trajectory.txt")
    read = Trajectory.read_tum(tmp_path / "trajectory.txt")
    assert read.stamps_ns.tolist() == written.stamps_ns.tolist()
    for a, b in zip(written.poses, read.poses, strict=True):
        # Nine decimals are written.
        assert a.distance_to(b) < 2e-9
        assert a.angle_to(b) < 1e-8


def test_tum_reads_comments_and_commas_and_names_the_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "groundtruth.txt"
    file.write_text("# stamp tx ty tz qx qy qz qw\n\n1.5, 1, 2, 3, 0, 0, 0, 1\n2 1 2 3 0 0 0 -1\n")
    trajectory = Trajectory.read_tum(file)
    assert trajectory.stamps_ns.tolist() == [1_500_000_000, 2_000_000_000]
    np.testing.assert_allclose(trajectory.poses[1].R, np.eye(3), atol=1e-12)
    for bad in (
        "3 1 2 3 0 0 0",
        "3 1 2 x 0 0 0 1",
        "3 1 2 3 0 0 0 0",
        "3 1 2 3 0 0 0 2",
        "x 1 2 3 0 0 0 1",
        "3 nan 2 3 0 0 0 1",
    ):
        file.write_text(f"# header\n1 1 2 3 0 0 0 1\n{bad}\n")
        with pytest.raises(SourceError, match=r"groundtruth\.txt:3"):
            Trajectory.read_tum(file)


def test_tum_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.txt"):
        Trajectory.read_tum(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1305031098.6659", 1_305_031_098_665_900_000),
        ("0.000000001", 1),
        ("12", 12_000_000_000),
        ("-1.5", -1_500_000_000),
        ("-0.5", -500_000_000),
        ("1.2345678919", 1_234_567_891),
        ("1e3", 1_000_000_000_000),
        ("1.5e-3", 1_500_000),
        (".5", 500_000_000),
        ("5.", 5_000_000_000),
    ],
)
def test_seconds_to_ns(text: str, ns: int) -> None:
    assert seconds_to_ns(text) == ns


def test_seconds_to_ns_refuses_words() -> None:
    for text in ("", "x", "1.x", "nan", "inf", "1e400", "1e30", "99999999999.5", "-99999999999"):
        with pytest.raises(ValueError):
            seconds_to_ns(text)


def test_stamps_before_zero_survive_a_file(tmp_path: Path) -> None:
    trajectory = Trajectory.from_items([(ns, SE3.identity()) for ns in (-1_500_000_000, -1, 0, 1)])
    trajectory.write_tum(tmp_path / "t.txt")
    assert Trajectory.read_tum(tmp_path / "t.txt").stamps_ns.tolist() == [-1_500_000_000, -1, 0, 1]


def test_tum_stamp_beyond_64_bits_names_its_line(tmp_path: Path) -> None:
    for stamp in ("1e400", "1e30", "99999999999999999999"):
        (tmp_path / "t.txt").write_text(f"{stamp} 1 2 3 0 0 0 1\n")
        with pytest.raises(SourceError, match=r"t\.txt:1"):
            Trajectory.read_tum(tmp_path / "t.txt")


def test_stamps_in_nanoseconds_are_known_by_their_size(tmp_path: Path) -> None:
    file = tmp_path / "KeyFrameTrajectory.txt"
    for text in ("1700000000123456789.000000", "1700000000123456789"):
        file.write_text(f"{text} 1 2 3 0 0 0 1\n")
        assert Trajectory.read_tum(file).stamps_ns.tolist() == [1_700_000_000_123_456_789]
    file.write_text("1.7e18 1 2 3 0 0 0 1\n")
    assert Trajectory.read_tum(file).stamps_ns.tolist() == [1_700_000_000_000_000_000]
    for beyond in ("1e30", "9" * 30, "9" * 5000, "nan", "inf"):
        file.write_text(f"{beyond} 1 2 3 0 0 0 1\n")
        with pytest.raises(SourceError, match=r"KeyFrameTrajectory\.txt:1"):
            Trajectory.read_tum(file)


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("#timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z", "1700000000000000000,1,2,3,0.8,0.6,0,0"),
        (
            "#timestamp,p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z [],v_x",
            "1700000000000000000,1,2,3,0.8,0.6,0,0,9",
        ),
        ("# timestamp tx ty tz qx qy qz qw", "1700000000 1 2 3 0.6 0 0 0.8"),
        ("#time,x,y,z,qx,qy,qz,qw", "1700000000000000000,1,2,3,0.6,0,0,0.8"),
    ],
)
def test_a_heading_says_where_the_scalar_of_a_quaternion_stands(
    tmp_path: Path, heading: str, row: str
) -> None:
    file = tmp_path / "poses.csv"
    file.write_text(f"{heading}\n{row}\n")
    trajectory = Trajectory.read_tum(file)
    assert trajectory.stamps_ns.tolist() == [1_700_000_000_000_000_000]
    np.testing.assert_allclose(trajectory.poses[0].quaternion_xyzw(), [0.6, 0, 0, 0.8])
    np.testing.assert_allclose(trajectory.poses[0].t, [1, 2, 3])


def test_columns_that_could_be_either_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "poses.csv"
    file.write_text("1700000000000000000,1,2,3,0.8,0.6,0,0\n")
    with pytest.raises(SourceError, match="order of the quaternion"):
        Trajectory.read_tum(file)


def test_a_heading_says_that_the_scale_is_unknown(tmp_path: Path) -> None:
    trajectory = Trajectory.from_items([(0, SE3.identity()), (10**9, SE3.exp([0, 0, 0, 1, 0, 0]))])
    for heading, unknown in (("", False), (UNKNOWN_SCALE, True)):
        trajectory.write_tum(tmp_path / "t.txt", heading)
        assert is_of_unknown_scale(tmp_path / "t.txt") == unknown
        assert len(Trajectory.read_tum(tmp_path / "t.txt")) == 2
