"""A batch system for one machine, made of a real executable and a folder: for tests, the guide and first tries."""
