"""Run commands as jobs of a Ray cluster: `mapl submit`, its checks, and what is sent with a job."""
