"""README.md's blocks run as they stand, here and in a fresh environment, and bring in nothing they should not."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "protocols" / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLE = "\n".join(block for block in BLOCKS if "homomorphic" not in block)
ALLOWED = {"securekd_protocols", "numpy", "cryptography", "cffi", "pycparser"}
REPORT = """
import json, sys
packages = {name.split(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}
print(json.dumps(sorted(name for name in packages if name not in sys.stdlib_module_names and name[0] != "_")))
"""


def imported_by(python, code, **kwargs):
    """What an interpreter has imported, from outside its standard library, after running `code`."""
    run = subprocess.run([python, "-c", code + REPORT], capture_output=True, text=True, **kwargs)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        (EXAMPLE, set()),
        ("import securekd_protocols.homomorphic", set()),
        ("\n".join(BLOCKS), {"tenseal", "zstandard"}),
    ],
)
def test_the_blocks_run(code, extra):
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'protocols')!r})\n"
    assert imported_by(sys.executable, path + code + "\n") - ALLOWED == extra


def pythons():
    found = {}
    for minor in (11, 12, 13):
        candidates = [
            shutil.which(f"python3.{minor}"),
            *sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")),
        ]
        for path in filter(None, candidates):
            run = subprocess.run(
                [str(path), "-c", "import sys; print(sys.version_info.minor)"], capture_output=True, text=True
            )
            if run.stdout.strip() == str(minor):
                found[f"3.{minor}"] = str(path)
                break
    return found


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_fresh_installation_without_extras(version, tmp_path):
    """`pip install .` and no more: the package imports, the README's example runs, nothing else comes in."""
    python = pythons().get(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    environment = tmp_path / "environment"
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    source = tmp_path / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "tests", "__pycache__", "results", "*.egg-info"),
        symlinks=True,
    )
    inside = str(environment / "bin" / "python")
    subprocess.run([inside, "-m", "pip", "install", "--quiet", str(source)], check=True)
    assert imported_by(inside, "import securekd_protocols\n", cwd=tmp_path) - ALLOWED == set()
    assert imported_by(inside, EXAMPLE, cwd=tmp_path) - ALLOWED == set()
    torch = subprocess.run([inside, "-c", "import torch"], capture_output=True)
    assert torch.returncode != 0
