"""Text files are whole at every moment."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from structopt_onnx.errors import UsageError
from structopt_onnx.report.writing import write_text


def test_what_can_not_be_finished_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "report.md"
    path.write_text("the last run's", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"report\.md: can't be written: No space left"):
        write_text(path, "this one's" * 1000)
    assert path.read_text(encoding="utf-8") == "the last run's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_mode_and_link_are_kept(tmp_path):
    path, link = tmp_path / "report.md", tmp_path / "latest.md"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    assert write_text(link, "né\n") == link
    assert link.is_symlink()
    assert path.read_bytes() == "né\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="devices")
def test_a_device_is_written_to_and_not_replaced(tmp_path):
    link = tmp_path / "nowhere"
    link.symlink_to(os.devnull)
    assert write_text(link, "gone") == link
    assert Path(os.devnull).is_char_device()


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"r\.md: can't be written: No such file"):
        write_text(tmp_path / "missing" / "r.md", "")
