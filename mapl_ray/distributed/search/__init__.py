"""`mapl tune` on Ray Tune: trials, samplers and population-based training."""
