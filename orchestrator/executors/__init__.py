"""Ways to have steps run: here in a pool of workers."""
