"""Client and follower over TLS: the certificate is checked, rows come at once, close is prompt."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.couch import Follower, Server
from orchestrator.errors import Unavailable


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure(certificate: Path, scripted: Any) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = type(scripted)(tls=context)
    yield server
    server.close()


def test_an_unknown_certificate_is_refused(secure: Any, answers: Any) -> None:
    secure.answers = [answers.reply({"couchdb": "Welcome"})]
    with pytest.raises(Unavailable, match=r"certificate is not accepted: self.signed.*SSL_CERT_FILE"):
        Server(secure.url).info()
    problems: list[str] = []
    feed = Follower(Server(secure.url).database("runs"), wait=lambda s: problems.append(feed.problem) or feed.close())
    assert list(feed.batches()) == []
    assert "certificate is not accepted" in problems[0]
    assert secure.requests == []


def test_a_feed_over_tls(secure: Any, answers: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sent: list[float] = []
    go = threading.Event()

    def wait() -> None:
        go.wait(3)
        sent.append(time.perf_counter())

    secure.answers = [
        answers.reply({"results": [], "last_seq": "0"}),
        answers.chunks(answers.row("1-x"), wait, answers.row("2-x"), lambda: time.sleep(2)),
    ]
    feed = Follower(Server(secure.url).database("runs"), since="now", mode="continuous")
    batches = feed.batches()
    assert next(batches).changes[0].seq == "1-x"
    threading.Timer(0.05, go.set).start()
    assert next(batches).changes[0].seq == "2-x"
    assert time.perf_counter() - sent[0] < 0.05
    threading.Timer(0.05, feed.close).start()
    began = time.perf_counter()
    assert list(batches) == []
    assert time.perf_counter() - began < 1
