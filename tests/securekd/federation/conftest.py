"""What tests of a small federation share."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """A disk that forgets: nobody pulls the plug here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
