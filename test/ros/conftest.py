"""The robot that the tests of the node share."""

from collections.abc import Iterator

import pytest
from fake_robot import Robot


@pytest.fixture
def robot(request: pytest.FixtureRequest) -> Iterator[Robot]:
    """A robot whose node got the ROS arguments of the test's parameter, not started yet."""
    made = Robot(*getattr(request, "param", ()))
    yield made
    made.fake.go_on.set()
    made.close()
