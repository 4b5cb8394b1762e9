"""What schemathesis is told besides an OpenAPI document: how bytes that are no JSON are read, and two checks that it lacks."""

import cbor2
import schemathesis
from hypothesis import strategies as st


@schemathesis.deserializer("application/octet-stream")
def octets(_context, response):
    return response.content.decode("latin-1")


@schemathesis.deserializer("application/cbor")
def cbor(_context, response):
    read = cbor2.loads(response.content)
    if cbor2.dumps(read, canonical=True) != response.content:
        raise ValueError("this is not the deterministic encoding of RFC 8949, section 4.2.1")
    return response.content.decode("latin-1")


schemathesis.openapi.media_type("application/cbor", st.binary(max_size=64))


def described(response, case):
    found = case.operation.responses.find_by_status_code(response.status_code)
    return found.definition if found else {}


@schemathesis.check
def the_code_of_a_problem_is_described(_context, response, case):
    words = described(response, case).get("description")
    if words and response.status_code >= 400 and "json" in response.headers["content-type"][0]:
        code = response.json()["code"]
        assert code in words.split(", "), f"{code} is not among: {words}"


@schemathesis.check
def the_headers_that_are_described_are_there(_context, response, case):
    for name in described(response, case).get("headers", {}):
        assert name in response.headers, f"{name} is described and missing"
