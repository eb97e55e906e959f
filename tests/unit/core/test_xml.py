"""XML is parsed if it declares no document type, whatever its encoding."""

import time

import pytest

from quadrat.core.xml import DocumentTypeError, XmlError, parse_xml, root_tag

LAUGHS = (
    '<!DOCTYPE a [<!ENTITY l0 "ha">'
    + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    + "]><a>&l9;</a>"
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>'


@pytest.mark.parametrize(
    "text", [LAUGHS, EXTERNAL, "<!DOCTYPE a><a/>", "<!DOCTYPE a SYSTEM 'b'><a/>"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_in_any_encoding(text: str, encoding: str) -> None:
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>' + " " * 5000 + "<!-- x -->"
    content = (declaration + text).encode(encoding)
    for read in (parse_xml, root_tag):
        start = time.monotonic()
        with pytest.raises(DocumentTypeError, match="declares a document type or entities"):
            read(content)
        with pytest.raises(DocumentTypeError):
            read(text)
        assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "content",
    [b"", b"<a>", b"<a></b>", b"text", b"<a>&b;</a>", b'<?xml version="1.0" encoding="no"?><a/>'],
)
def test_what_is_not_well_formed_is_an_error(content: bytes) -> None:
    with pytest.raises(XmlError, match="not well-formed XML"):
        parse_xml(content)


def test_the_root_is_found_before_what_is_broken_behind_it() -> None:
    assert root_tag(b"<a><b>") == "a"
    assert root_tag("<a xmlns='space'><b>") == "space}a"


def test_the_declared_encoding_counts() -> None:
    content = '<?xml version="1.0" encoding="latin-1"?><a>é</a>'.encode("latin-1")
    assert parse_xml(content).text == "é"
    assert parse_xml('<?xml version="1.0" encoding="utf-16"?><a>é</a>').text == "é"
