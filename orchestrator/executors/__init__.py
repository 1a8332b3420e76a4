"""Ways to have steps run: here in a pool of workers.

``pool`` the workers and what each is given, ``process`` one of them, ``events`` what they say, ``limits``, ``hang`` and
``memory`` when an attempt is to be ended, ``blame`` why a worker ended, ``spool`` reports on disk.
"""
