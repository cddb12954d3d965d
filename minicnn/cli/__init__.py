"""The commands: train, predict, evaluate."""
