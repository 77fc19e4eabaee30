"""Fetching traces: whole or not at all, resumed, checked, and clear when it cannot be done."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from experiments import fetch_traces
from experiments.fetch_traces import TRACES, TraceSource, fetch, main
from workbench.errors import WorkloadError

CONTENT = bytes(range(256)) * 1000


@contextmanager
def server(content=CONTENT, ranges=True, breaks_after=None) -> Iterator[tuple[str, list[str]]]:
    """Serve one file on loopback; yields its address and the Range headers that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range", "")
            asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranges else 0
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin:breaks_after])

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/trace", asked
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def source(url, content=CONTENT):
    sha256 = hashlib.sha256(content).hexdigest()
    return TraceSource("trace.csv", url, sha256, len(content), "test")


def test_a_file_is_fetched_once(tmp_path):
    with server() as (url, asked):
        assert fetch(source(url), tmp_path / "new" / "folder")
        assert not fetch(source(url), tmp_path / "new" / "folder")
    assert asked == [""]
    assert (tmp_path / "new/folder/trace.csv").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == ["trace.csv"]


def test_file_addresses_work(tmp_path):
    (tmp_path / "there").write_bytes(CONTENT)
    assert fetch(source((tmp_path / "there").as_uri()), tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_taken_up_again(tmp_path, ranges):
    with (
        server(breaks_after=5000) as (url, _),
        pytest.raises(WorkloadError, match="broke off after 5000 of 256000 bytes"),
    ):
        fetch(source(url), tmp_path)
    assert not (tmp_path / "trace.csv").exists()
    with server(ranges=ranges) as (url, asked):
        assert fetch(source(url), tmp_path)
    assert asked == ["bytes=5000-"]
    assert (tmp_path / "trace.csv").read_bytes() == CONTENT


def test_a_whole_part_needs_no_network(tmp_path):
    (tmp_path / "trace.csv.part").write_bytes(CONTENT)
    assert fetch(source("http://127.0.0.1:1/"), tmp_path)


def test_other_bytes_are_not_kept(tmp_path):
    with (
        server(CONTENT[::-1]) as (url, _),
        pytest.raises(WorkloadError, match=r"gave a file with SHA-256 .* but it must be"),
    ):
        fetch(source(url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_user_is_not_replaced(tmp_path):
    (tmp_path / "trace.csv").write_text("mine")
    with server() as (url, _):
        with pytest.raises(WorkloadError, match="replace it with --force"):
            fetch(source(url), tmp_path)
        assert (tmp_path / "trace.csv").read_text() == "mine"
        assert fetch(source(url), tmp_path, force=True)
    assert (tmp_path / "trace.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/trace", "file:///no/such/file"])
def test_offline_is_told_in_one_line(tmp_path, url, monkeypatch, capsys):
    monkeypatch.setattr(fetch_traces, "TRACES", (source(url),))
    assert main(["--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {url} cannot be downloaded (")
    assert str(tmp_path / "trace.csv") in error
    assert error.count("\n") == 1


def test_the_command_fetches_what_is_named(tmp_path, monkeypatch, capsys):
    with server() as (url, asked):
        other = replace(source(url), name="other.csv")
        monkeypatch.setattr(fetch_traces, "TRACES", (source(url), other))
        assert main(["--out", str(tmp_path), "--only", "other.csv"]) == 0
        assert len(asked) == 1
    assert f"use them with traces_dir={tmp_path}" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["other.csv"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkloadError, match="choose another --out"):
        fetch(source("http://127.0.0.1:1/"), tmp_path / "file" / "folder")


def test_the_listed_checksums_are_those_of_the_traces(shared_dir):
    for trace in TRACES:
        content = (shared_dir / "traces" / trace.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (trace.sha256, trace.size)
