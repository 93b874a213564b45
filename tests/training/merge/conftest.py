import pytest

from tests.training.merge.team import Team, fit_stage, write_mine, write_theirs


@pytest.fixture(scope="session")
def zoos(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Two zoos with fitted second stages, whose labels have different orders and ids; tests must not change them."""
    root = tmp_path_factory.mktemp("zoos")
    team = Team(write_mine(root / "alice"), write_theirs(root / "bob"))
    for path in (team.mine, team.theirs):
        fit_stage(path)
    return team
