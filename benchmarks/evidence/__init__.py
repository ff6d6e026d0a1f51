"""The experiment of `make evidence`: plain preference learning against MAPL, models trained from scratch."""
