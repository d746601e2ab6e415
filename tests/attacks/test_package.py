"""What importing the package costs and gives."""

import subprocess
import sys

import pytest

import securekd_attacks
from securekd_attacks import AttackInputError, errors


def test_everything_exported_exists():
    assert sorted(set(securekd_attacks.__all__)) == securekd_attacks.__all__
    for name in securekd_attacks.__all__:
        assert getattr(securekd_attacks, name) is not None


def test_import_is_light():
    code = f"import sys; sys.path[:] = {sys.path!r}; import securekd_attacks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not {"torch", "scipy.stats", "pandas", "sklearn", "securekd"} & loaded


@pytest.mark.parametrize("name", [name for name in dir(errors) if isinstance(getattr(errors, name), type)])
def test_every_error_carries_value_and_remedy(name):
    kind = getattr(errors, name)
    assert issubclass(kind, AttackInputError)
    assert issubclass(kind, ValueError)
    error = kind("epsilon out of range", value=-1, remedy="choose a positive one")
    assert (error.value, error.remedy) == (-1, "choose a positive one")
    assert str(error) == "epsilon out of range (got -1); choose a positive one"
