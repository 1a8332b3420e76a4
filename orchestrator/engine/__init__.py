"""What to do next: decisions apart from the outside world, which comes in as arguments.

A poller's::

    backlog, sweep, pages       documents that are ready, in memory and in the database's views
    engine                      claims and records: what becomes of documents and reports
    outbox, flight              its writes: those that wait, and a bulk that is on its way
    costs, remembered, counts   what steps cost, what was written or refused last, what has been done
    recovery, heartbeat         what dead pollers left, and how it is seen that one lives
    versions                    which version of a document is ours, where sites have changed it too

A farm's daemon's::

    farm                        which jobs to intend, to submit and to find again
    submission, holdings        what goes into a job, and what the farm has
    farmworld, witnesses, fate  what is asked of a farm, and what became of an attempt by what it says
    absence, withdrawal         since when a job is gone; taking back what nobody wants any more
    verdicts, recording, edits  how a fate is written into documents

Gathers' and people's::

    gather, gathered            documents of many, and how they stand to their members
    controls                    pausing, draining, limits, cancelling
    operations, choosing        what people do to documents, and finding those that they mean
    outputs                     old output files of steps that are reset
    untrue                      records of attempts that turned out otherwise
"""
