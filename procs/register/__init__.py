"""Registration: finds raw files, sees that they are closed, reads their headers and describes each as a document.

``settings`` what to take and when, ``watch`` the watcher, ``closed`` the signs that a file is closed, ``readers`` the
raw formats (the plug-in point), ``document`` from a file to its document, ``paths`` file names in JSON. Knows no
database: ``orchestrator.registrar`` writes what comes out of here.
"""
