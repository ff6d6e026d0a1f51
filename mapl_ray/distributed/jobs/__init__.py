"""Commands as jobs of a Ray cluster: `mapl submit`, its checks, and what travels with a job."""
