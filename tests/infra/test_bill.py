"""The bill of materials of a release, its licences, and the look-up of known vulnerabilities."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from infra.release import audit, bill, jars
from runners.flink import artifacts


def a_jar(path: Path, **inside: str) -> str:
    """A jar with what is shaded into it, as GROUP__ARTIFACT=VERSION; its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, version in inside.items():
            group, artifact = name.replace("_dot_", ".").split("__")
            text = f"# made by Maven\nversion={version}\ngroupId={group}\nartifactId={artifact}\n"
            archive.writestr(f"META-INF/maven/{group}/{artifact}/pom.properties", text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def a_package(folder: Path, name: str, version: str, *lines: str) -> None:
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
    text = "\n".join([f"Name: {name}", f"Version: {version}", *lines, "", "License: of the description"])
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(text)


def test_jars_are_named_by_the_list_by_what_they_say_or_by_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    listed = a_jar(lib / "core-all.jar", org_dot_x__core="2.0", org_dot_y__shaded="1.5")
    a_jar(lib / "flink-dist-1.19.3.jar", com_dot_z__inner="3")
    a_jar(lib / "mine-7.jar", org_dot_mine__mine="7")
    a_jar(lib / "strange.jar")
    monkeypatch.setattr(artifacts, "JAR_LIST", tmp_path / "jars.txt")
    artifacts.JAR_LIST.write_text(f"{listed} core-all.jar org.x:core:2.0 The Apache Software License, Version 2.0\n")
    found = {component.purl: component for component in bill.jars(tmp_path)}
    assert set(found) == {
        "pkg:maven/org.x/core@2.0",
        "pkg:maven/org.apache.flink/flink-dist@1.19.3",
        "pkg:maven/org.mine/mine@7",
        "pkg:maven/strange",
    }
    core = found["pkg:maven/org.x/core@2.0"]
    assert (core.licence, core.sha256) == ("Apache-2.0", listed)
    assert [part.purl for part in core.parts] == ["pkg:maven/org.y/shaded@1.5"]
    assert found["pkg:maven/strange"].licence == "unknown"


def test_licences_of_packages_are_the_expression_or_the_classifiers_or_a_short_text(tmp_path: Path) -> None:
    a_package(tmp_path, "A_b.c", "1.0", "License-Expression: MIT OR Apache-2.0", "License: other")
    a_package(tmp_path, "d", "2", "Classifier: License :: OSI Approved :: MIT License", "License: " + "text " * 100)
    a_package(tmp_path, "e", "3", "License: Apache 2.0")
    a_package(tmp_path, "f", "4", "License: " + "text " * 100)
    found = {component.purl: component.licence for component in bill.python_packages(tmp_path)}
    assert found == {
        "pkg:pypi/a-b-c@1.0": "MIT OR Apache-2.0",
        "pkg:pypi/d@2": "MIT",
        "pkg:pypi/e@3": "Apache-2.0",
        "pkg:pypi/f@4": "unknown",
    }


def test_debians_packages_have_the_licences_that_their_copyright_files_name(tmp_path: Path) -> None:
    files = {
        "var/lib/dpkg/status": "Package: tini\nStatus: install ok\nVersion: 0.19.0-1\nDescription: x\n License: y\n\n"
        "Package: zlib1g\nVersion: 1:1.2\n\nPackage: libgcc-s1\nVersion: 12\n\nPackage: none\nVersion: 1\n",
        "usr/share/doc/tini/copyright": "Format: x\n\nFiles: *\nLicense: MIT\n\nFiles: d\nLicense: GPL-2+\n text\n",
        "usr/share/doc/zlib1g/copyright": "Packaged by x.\nLicense: that of the packaging is GPL-2\n",
        "usr/share/doc/gcc-12-base/copyright": "Format: https://d\n\nFiles: *\nLicense: GPL-3+ with GCC exception\n",
    }
    with tarfile.open(tmp_path / "debian.tar", "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("./usr/share/doc/libgcc-s1")
        link.type, link.linkname = tarfile.SYMTYPE, "gcc-12-base"
        archive.addfile(link)
    found = {component.purl: component.licence for component in bill.debian_packages(tmp_path / "debian.tar")}
    assert found == {
        "pkg:deb/debian/tini@0.19.0-1": "GPL-2+ AND MIT",
        "pkg:deb/debian/zlib1g@1%3A1.2": "unknown",
        "pkg:deb/debian/libgcc-s1@12": "GPL-3+ with GCC exception",
        "pkg:deb/debian/none@1": "unknown",
    }


def test_an_archive_without_a_list_of_packages_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(bill.ReleaseError, match=r"empty\.tar: no var/lib/dpkg/status"):
        list(bill.debian_packages(tmp_path / "empty.tar"))


def test_the_bill_is_cyclonedx_and_depends_on_content_only(tmp_path: Path) -> None:
    components = [
        *bill.native_libraries("PycURL/7.45.7\nlibcurl/8.14.1\nOpenSSL/3.5.1"),
        bill.Component("maven", "org.x:core", "2.0", "MIT", "ab", (bill.Component("maven", "org.y:inner", "1"),)),
        *bill.os_packages(),
    ]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, given in zip(folders, (components, [*reversed(components), components[0]]), strict=True):
        folder.mkdir()
        bill.write(folder, "0.1.0", given)
    first, second = ([(folder / name).read_bytes() for name in ("bom.cdx.json", "licences.csv")] for folder in folders)
    assert first == second
    document = json.loads(first[0])
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    by_purl = {component["purl"]: component for component in document["components"]}
    assert by_purl["pkg:maven/org.x/core@2.0"] == {
        "type": "library",
        "group": "org.x",
        "name": "core",
        "version": "2.0",
        "hashes": [{"alg": "SHA-256", "content": "ab"}],
        "licenses": [{"license": {"name": "MIT"}}],
        "purl": "pkg:maven/org.x/core@2.0",
        "components": [
            {"type": "library", "group": "org.y", "name": "inner", "version": "1", "purl": "pkg:maven/org.y/inner@1"}
        ],
    }
    assert {"pkg:generic/libcurl@8.14.1", "pkg:generic/openssl@3.5.1", "pkg:rpm/amzn/python3.11"} <= set(by_purl)
    assert "MIT,pkg:maven/org.x/core@2.0" in first[1].decode().splitlines()


def test_the_list_s_licences_are_of_the_pom_or_of_its_parent(tmp_path: Path) -> None:
    space = 'xmlns="http://maven.apache.org/POM/4.0.0"'
    parent = tmp_path / "org" / "x" / "parent" / "9"
    child = tmp_path / "org" / "x" / "child" / "1"
    for folder in (parent, child):
        folder.mkdir(parents=True)
    (parent / "parent-9.pom").write_text(
        f"<project {space}><licenses><license><name>MIT\n License</name></license></licenses></project>"
    )
    (child / "child-1.pom").write_text(
        f"<project {space}><parent><groupId>org.x</groupId><artifactId>parent</artifactId><version>9</version></parent>"
        "</project>"
    )
    jar = child / "child-1.jar"
    digest = a_jar(jar)
    own = tmp_path / jars.OWN[0]
    own.touch()
    assert list(jars.lines([own, jar], tmp_path)) == [f"{digest} child-1.jar org.x:child:1 MIT License"]


def a_bill(folder: Path, *purls: str) -> Path:
    inner = {"purl": purls[-1]}
    path = folder / "bom.cdx.json"
    path.write_text(
        json.dumps(
            {"components": [*({"purl": purl} for purl in purls[:-1]), {"purl": purls[0], "components": [inner]}]}
        )
    )
    return path


def test_an_audit_asks_for_every_package_also_inside_jars(
    tmp_path: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        purls = [query["package"]["purl"] for query in request.get_json()["queries"]]
        asked.extend(purls)
        results: list[dict[str, Any]] = [
            {"vulns": [{"id": "GHSA-1"}, {"id": "CVE-2"}]} if "bad" in purl else {} for purl in purls
        ]
        return Response(json.dumps({"results": results}))

    httpserver.expect_request("/v1/querybatch", method="POST").respond_with_handler(answer)
    path = a_bill(tmp_path, "pkg:pypi/good@1", "pkg:rpm/amzn/xfsprogs", "pkg:maven/g/bad@2")
    assert audit.main([f"--bill={path}", f"--database={httpserver.url_for('')}"]) == 1
    assert asked == ["pkg:maven/g/bad@2", "pkg:pypi/good@1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pkg:maven/g/bad@2  GHSA-1 CVE-2"
    assert lines[1].startswith("pkg:rpm/amzn/xfsprogs  not looked up")
    assert lines[2] == "1 of 2 packages have known vulnerabilities"


@pytest.mark.parametrize("body", ["no JSON", '{"results": []}', "{}"])
def test_a_database_that_does_not_answer_is_no_all_clear(
    tmp_path: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    httpserver.expect_request("/v1/querybatch").respond_with_data(body)
    path = a_bill(tmp_path, "pkg:pypi/good@1", "pkg:pypi/other@1")
    for database in (httpserver.url_for(""), "http://127.0.0.1:1"):
        assert audit.main([f"--bill={path}", f"--database={database}"]) == 3
        assert "nothing is known of 2 packages" in capsys.readouterr().err


def test_without_a_release_an_audit_says_what_makes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([f"--bill={tmp_path}/none.json"]) == 2
    assert "make release writes it" in capsys.readouterr().err
