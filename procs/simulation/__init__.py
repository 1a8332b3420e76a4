"""The parts of the simulated DAQ: pulse shapes and noise, Samba files, DATE files. Used through procs.simulate."""
