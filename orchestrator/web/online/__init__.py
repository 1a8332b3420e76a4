"""The control room: plots of the running experiment, live to any number of viewers.

The broadcast brings the newest plots into memory (``listening``, ``board``); each viewer gets those it shows, the
newest only (``hub``); pages, pictures and old runs stand around that. What is live touches no disk and no database.
"""
