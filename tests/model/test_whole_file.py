"""Files that are replaced are never half of two; what is no file is written to."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from structopt_onnx.model.whole_file import write_whole

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    target = tmp_path / "a.toml"
    target.write_text("old")
    target.chmod(0o640)
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "a", tmp_path / "b"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    link = tmp_path / "b"
    link.symlink_to(tmp_path / "a")
    write_whole(link, b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@needs_pipes
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_also_by_its_link(tmp_path, linked):
    read, write = os.pipe()
    try:
        path = tmp_path / "pipe"
        if linked:
            # As /dev/stdout is: its link leads to a name that is no path.
            path.symlink_to(f"/dev/fd/{write}")
        else:
            os.mkfifo(path)
            reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
            found: list[bytes] = []
            reader.start()
        write_whole(path, b"new")
        if linked:
            assert os.read(read, 10) == b"new"
        else:
            reader.join(10)
            assert found == [b"new"]
    finally:
        os.close(read)
        os.close(write)
