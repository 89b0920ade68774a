"""Lets Hydra's `-m` hand a whole sweep to the application in one call."""
