"""The table of faults: each is done to the real system, and the outcome is measured. See `__main__.py`."""
