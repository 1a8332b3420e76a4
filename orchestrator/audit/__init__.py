"""The audit: database, spool, farms and disk checked against each other.

auditor     one run of it: everything read once, and whatever seems wrong looked at again
document    what one document says of itself
disk        outputs, spools and raw files here; far: outputs across SSH; farm: a farm's jobs and spool
findings    what can be found, as one table
mend        mending what needs nobody's judgement
"""
