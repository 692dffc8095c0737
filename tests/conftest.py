import os

from hypothesis import settings

# Examples take as long as the machine lets them: a deadline would fail tests on a busy one.
settings.register_profile("dse", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dse"))
