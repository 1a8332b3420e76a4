"""Reducers: histograms of many spills, the same online, offline and merged in parts."""
