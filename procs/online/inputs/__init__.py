"""Where spills come from.

``date`` DATE files, ``samba`` Samba files, ``socket`` a DAQ that connects, ``root`` ROOT files that a step has made,
``converted`` those of the step ``convert``, ``spill_json`` spills as JSON documents, ``replay`` any of them once more
at their own pace. Each goes on where its ``position`` stands, and finds where runs begin and how they end.
"""
