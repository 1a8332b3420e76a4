"""Live in the control room: spills are transformed in parallel, reduced to histograms, and shown while they come.

The way of a spill: an *input* reads it; a *worker* runs the map modules over it; the *store* of its run keeps the
result; *reducers* follow the store and fill histograms; the *broadcast* carries pictures of them, in memory, to any
number of web servers. Every stage but the last keeps what it is given until the next one has said that it has it.
"""
