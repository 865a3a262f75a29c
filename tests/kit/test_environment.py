"""
The variables that put a program behind the interceptor.
"""

from __future__ import annotations

import ssl

from pinset.testing import Authority, proxied_environment, trusting_environment, write_trust

PROXY = "http://127.0.0.1:8080"


def test_nothing_goes_another_way(tmp_path):
    """Proxy and trust are those of the interceptor, whatever they were; exceptions and other proxies are gone."""
    before = {
        "HTTPS_PROXY": "http://company:3128",
        "NO_PROXY": "*",
        "no_proxy": "localhost",
        "ALL_PROXY": "socks5://company",
        "all_proxy": "socks5://company",
        "SSL_CERT_FILE": "company.pem",
        "PATH": "/bin",
    }
    after = proxied_environment(PROXY, tmp_path, before)
    assert not {"NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"} & set(after)
    assert {after[name] for name in ("HTTPS_PROXY", "https_proxy", "wss_proxy")} == {PROXY}
    assert {after[name] for name in trusting_environment(tmp_path)} == {str(tmp_path)}
    assert after["PATH"] == "/bin"
    assert before["NO_PROXY"] == "*"


def test_environment_of_this_process(tmp_path, monkeypatch):
    """By default it is that of this process, which is left alone."""
    monkeypatch.setenv("OURS", "kept")
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxied_environment(PROXY, tmp_path)["OURS"] == "kept"
    assert proxied_environment(PROXY, tmp_path, {}).get("OURS") is None


def test_trust_is_added(tmp_path, monkeypatch):
    """The authorities that are trusted anyway stay, and one comes."""
    usual, ours = Authority("Usual"), Authority("Ours")
    (tmp_path / "usual.pem").write_text(usual.root_pem.rstrip())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "usual.pem"))
    write_trust(tmp_path / "trust.pem", ours.root_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tmp_path / "trust.pem")
    assert set(context.get_ca_certs(binary_form=True)) == {usual.root, ours.root}


def test_trust_where_there_is_none(tmp_path, monkeypatch):
    """Without a bundle of the system's, ours alone."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setattr("pinset.testing._environment._BUNDLES", ())
    ours = Authority("Ours")
    write_trust(tmp_path / "trust.pem", ours.root_pem)
    assert (tmp_path / "trust.pem").read_text() == ours.root_pem
