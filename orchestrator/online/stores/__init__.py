"""Where spills wait between workers and reducers: in memory, in the memory of another process, or in the database.

``memory`` in this process, ``served`` in another one's, ``couch`` in the database, ``files`` what is too big for
either, ``retention`` what may go, ``names`` how things are called. One suite of tests runs against all.
"""
