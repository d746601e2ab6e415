"""The coverage-guided fuzzer's corpus, replayed; and, where atheris is installed, a time-boxed run of the fuzzer."""

import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORPUS, VECTORS, FUZZER = HERE / "corpus", HERE.parent / "vectors", HERE / "fuzz_decoders.py"


class _NoInstrumentation:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@pytest.fixture(scope="module")
def fuzzer():
    """The fuzzer's module, with or without atheris; without it nothing is instrumented."""
    stand_in = types.ModuleType("atheris")
    stand_in.instrument_imports = lambda **_: _NoInstrumentation()
    before = sys.modules.get("atheris")
    sys.modules["atheris"] = stand_in
    spec = importlib.util.spec_from_file_location("fuzz_decoders", FUZZER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["atheris"]
    if before is not None:
        sys.modules["atheris"] = before
    return module


def seeds(fuzzer):
    """Genuine messages, for each decoder those that it is for, out of the vectors of good sessions."""
    kinds = {1: 5, 10: 6, 11: 7, 7: 8, 5: 9, 4: 10, 3: 11, 6: 12, 9: 13, 8: 14, 2: 15, 0: 2}
    for path in sorted(VECTORS.glob("session-*.json")):
        regular = "regular" in path.stem
        for message in json.loads(path.read_text())["messages"]:
            data = bytes.fromhex(message["bytes"])
            yield bytes([0]) + data
            yield bytes([kinds[data[5]] | (128 if regular else 0)]) + data[76:-64]


def test_the_corpus_holds(fuzzer):
    files = sorted(CORPUS.iterdir())
    assert len(files) > 50
    for path in files:
        fuzzer.one_input(path.read_bytes())


def test_genuine_messages_hold(fuzzer):
    accepted = 0
    for data in seeds(fuzzer):
        fuzzer.one_input(data)
        try:
            accepted += fuzzer.DECODERS[(data[0] & 127) % len(fuzzer.DECODERS)](data) == data[1:]
        except fuzzer.ProtocolError:
            continue
    assert accepted > 200


def test_a_second_spelling_would_be_found(fuzzer, monkeypatch):
    monkeypatch.setattr(fuzzer, "DECODERS", [lambda data: data[1:] + b"!"])
    with pytest.raises(AssertionError):
        fuzzer.one_input(b"\0x")


@pytest.mark.slow
def test_a_minute_of_fuzzing(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS, corpus)
    command = [sys.executable, str(FUZZER), str(corpus), "-max_total_time=60", "-max_len=4096", "-timeout=5"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "Done" in run.stderr
