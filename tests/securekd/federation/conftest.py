"""What tests of a small federation share."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Small files and models: a disk that forgets and one thread do for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    torch.set_num_threads(threads)
