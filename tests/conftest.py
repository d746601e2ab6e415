"""What all tests share."""

import os

# One thread for whatever computes, here and in the processes that tests start, as in a run: models are small, and
# threads that wait for each other beside other tests burn what those need. Torch reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

# Examples are timed by no one: a busy machine is no failure. They are the same in every run of the same test, so that
# what passes here passes elsewhere; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
