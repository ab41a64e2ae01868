"""What schemathesis is told of Echo: who calls, identifiers of what is there, which answers are documented, and which refusals of a request that its
schema allows are rules that need data. ECHO_FUZZ_AS says as whom it calls: `nobody`, `user`, `admin` (whose number, ECHO_FUZZ_ADMIN, the operator
gave the role). Routes that end the caller's session, or change how one signs in, are called as a visitor, a new one where the last has gone."""

import atexit
import collections
import json
import os
import sys
import threading
import time

import schemathesis

import example_data as data
import known_requests
from example_data import ADA, PERSON
from refusals import check_problem, not_by_rule

PROGRESS_S = 15


if PERSON != "nobody":

    # Well before a token's end.
    @schemathesis.auth(refresh_interval=120)
    class SignIn:
        def get(self, case, ctx):
            with data.LOCK:
                return remember(ADA.log_in()["access_token"])

        def set(self, case, data, ctx):
            case.headers["Authorization"] = f"Bearer {data}"


# Access tokens of this run: a request that has another one, or none, was made to be refused.
TOKENS = set()


def remember(token):
    TOKENS.add(f"Bearer {token}")
    return token


@schemathesis.serializer("application/offset+octet-stream")
def bytes_of_an_upload(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()


UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def before_call(ctx, case, kwargs):
    if case.meta is not None and UNKNOWN_HEADER in {name.lower() for name in case.headers or {}}:
        # A request may have headers that nobody named; one is not wrong for it.
        object.__setattr__(case.meta.generation, "mode", schemathesis.GenerationMode.POSITIVE)
        return
    label = case.operation.label
    has_token = case.headers.get("Authorization") in TOKENS
    with data.LOCK:
        if has_token and label in known_requests.OF_THE_VISITOR:
            case.headers["Authorization"] = f"Bearer {remember(known_requests.VISITOR.get().log_in()['access_token'])}"
        if is_valid(case) and (has_token or PERSON == "nobody" or is_public(case)):
            known_requests.complete(case)


def is_valid(case):
    """By the document."""
    return case.meta is not None and case.meta.generation.mode.is_positive and case.method == case.operation.method.upper()


def is_public(case):
    return case.operation.definition.raw.get("security") == []


# --- How many -------------------------------------------------------------------------------------------------------------------------

# By route and status: of all requests, and of those that are valid by the document and that the route's access rule lets through.
COUNTED, ADMITTED = collections.Counter(), collections.Counter()
COUNTS_LOCK = threading.Lock()
STARTED_AT = time.monotonic()
LAST_SAID = [STARTED_AT]


def is_admitted(case, response):
    if not is_valid(case):
        return False
    if is_public(case):
        return True
    roles = {role for rule in case.operation.definition.raw["security"] for role in rule["bearer"]}
    return response.request.headers.get("Authorization") in TOKENS and roles <= ({"admin"} if PERSON == "admin" else set())


@schemathesis.hook
def after_call(ctx, case, response):
    label, status = case.operation.label, response.status_code
    if case.method != case.operation.method.upper():
        label = f"{case.method} {label.split(' ', 1)[1]}"
    if 200 <= status < 300:
        if label in known_requests.ENDS_THE_VISITOR:
            known_requests.VISITOR.is_gone()
        if status == 201 and label.startswith("POST "):
            known_requests.SEEN.add(response.json().get("id"))
    with COUNTS_LOCK:
        COUNTED[label, status] += 1
        ADMITTED[label, status] += is_admitted(case, response)
        now = time.monotonic()
        if now - LAST_SAID[0] >= PROGRESS_S:
            LAST_SAID[0] = now
            print(f"... {COUNTED.total()} requests in {now - STARTED_AT:.0f} s", file=sys.stderr, flush=True)


@atexit.register
def write_counts():
    """For the program that started this one."""
    counts = collections.defaultdict(dict)
    for (label, status), count in sorted(COUNTED.items()):
        counts[label][status] = {"all": count, "admitted": ADMITTED[label, status]}
    paths = data.ask("GET", "/openapi.json")["paths"]
    routes = [f"{method.upper()} {path}" for path, operations in paths.items() for method in operations]
    with open(os.environ["ECHO_FUZZ_COUNTS"], "w", encoding="utf-8") as file:
        json.dump({"counts": counts, "routes": routes}, file, indent=1)


# --- What is refused ------------------------------------------------------------------------------------------------------------------

@schemathesis.check
def refused_as_documented(ctx, response, case):
    """A failure is a problem document (RFC 9457) whose code stands in host/docs/ERRORS.md with this status, with the headers that belong to it."""
    status = response.status_code
    if status < 400 or response.request.method == "HEAD":
        return
    media_type = response.headers.get("content-type", [""])[0]
    assert media_type == "application/problem+json", f"a failure of the type {media_type!r}"
    problem = response.json()
    check_problem(problem)
    assert problem["status"] == status, f"the document says {problem['status']}, the answer {status}"
    assert problem.get("request_id") == response.headers["x-request-id"][0], "another request_id than in the header"
    wanted = {401: "www-authenticate", 405: "allow", 423: "retry-after", 429: "retry-after"}.get(status)
    assert wanted is None or wanted in response.headers, f"{status} without {wanted}"


@schemathesis.check
def refused_by_a_rule_alone(ctx, response, case):
    """A request that the schema allows is refused by a rule, never for its form."""
    if response.status_code not in (400, 412, 413, 415, 422) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    wrong = not_by_rule(response.json())
    assert not wrong, f"the schema allows what is refused: {wrong}"
