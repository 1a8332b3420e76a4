"""The modules of the live system: inputs, maps, reducers."""
