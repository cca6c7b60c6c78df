"""What tests/conftest.py promises to every test."""

import os
import socket
import sys

import pytest


def test_there_is_no_network():
    with pytest.raises(OSError, match=r"tests have no network, and this one wanted .*192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


def test_one_thread():
    import torch

    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.get_num_threads() == 1


def test_a_study_folder_is_empty_and_writable(study_dir):
    assert list(study_dir.iterdir()) == []
    (study_dir / "file").write_text("x", encoding="utf-8")


def test_published_tables_are_found_through_the_environment(data_root):
    assert data_root.is_absolute()
    assert any(data_root.iterdir())


def test_the_package_under_test_is_this_checkout():
    import gnomon

    assert os.path.dirname(gnomon.__file__) == os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    assert "gnomon" in sys.modules
