"""Random killing: nothing is lost but what a dead QEMU takes along (lib/randomkills.py)."""

from lib.randomkills import Killing
from lib.runner import limit, slow

CI_SECONDS = 240
ALL_KILLS = 500
HOUR = 3600


@limit(CI_SECONDS + 180)
def test_killed_at_random(host):
    """Random parties die at random moments of random operations, for four minutes."""
    assert Killing(host).run(10 ** 6, CI_SECONDS)


@slow
@limit(4 * HOUR)
def test_killed_five_hundred_times(host):
    """The same, 500 kills."""
    assert Killing(host).run(ALL_KILLS, 4 * HOUR) == ALL_KILLS


@slow
@limit(100 * HOUR)
def test_killed_for_hours(host):
    """The same for as long as run.py --hours says."""
    assert not host.hours or Killing(host).run(10 ** 6, host.hours * HOUR)
