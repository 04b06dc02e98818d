"""A stand-in for the API that says so in everything it prints: no real model."""

MODEL = "simulated/model"  # the only one it serves
