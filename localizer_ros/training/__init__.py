"""Training of networks: recordings to batches, one flat loop, a checkpoint to go on from."""
