"""Fault injection: each fault is injected into the real system, and the outcome is measured. See `__main__.py`."""
