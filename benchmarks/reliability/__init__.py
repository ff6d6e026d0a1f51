"""The table of faults: each is done to the real system, and what came of it is measured. See `__main__.py`."""
