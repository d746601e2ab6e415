"""What all tests share."""

from hypothesis import settings

# Examples are timed by no one: a busy machine is no failure.
settings.register_profile("securekd", deadline=None)
settings.load_profile("securekd")
