"""Which file systems give events, from tables of mounts as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from procs.register.mounts import file_system, has_events

TABLE = """\
/dev/sda1 / ext4 rw 0 0
server:/data /data nfs4 rw 0 0
server:/with\\040space /mnt/with\\040space nfs rw 0 0
tmpfs /data/fast tmpfs rw 0 0
me@host:/x /home/me/x fuse.sshfs rw 0 0
server:/over /over nfs rw 0 0
/dev/sdb1 /over xfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"), ("/dat", "ext4"), ("/data", "nfs4"), ("/data/run", "nfs4"), ("/data/fast/x", "tmpfs"),
        ("/mnt/with space/x", "nfs"), ("/home/me/x/y", "fuse.sshfs"), ("/over/x", "xfs"),
    ],
)  # fmt: skip
def test_the_longest_mount_point_holds(path: str, kind: str) -> None:
    assert file_system(path, TABLE) == kind


def test_remote_ones_are_polled(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"a / ext4 rw 0 0\nb {tmp_path}/nfs nfs rw 0 0\nc {tmp_path}/s fuse.sshfs rw 0 0\n")
    assert has_events(str(tmp_path), table)
    assert not has_events(str(tmp_path / "nfs"), table)
    assert not has_events(str(tmp_path / "s" / "deep"), table)
    assert not has_events(str(tmp_path), tmp_path / "no table")
