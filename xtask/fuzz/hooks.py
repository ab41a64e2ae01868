"""What schemathesis is told of Echo: who calls, identifiers of what is there, and which refusals of a request that its schema allows are rules
that need data. It signs people up at a host in development mode (ECHO_FUZZ_URL). ECHO_FUZZ_AS says as whom it calls: `nobody`, `user`, `admin` (whose
number, ECHO_FUZZ_ADMIN, the operator gave the role), or `leaver`, who signs in anew for each request, as what is tried ends the session."""

import atexit
import collections
import json
import os
import random
import re
import sys
import threading
import time
import urllib.error
import urllib.request

import schemathesis
from hypothesis import strategies

URL = os.environ["ECHO_FUZZ_URL"]
PERSON = os.environ["ECHO_FUZZ_AS"]
ADMIN_PHONE = os.environ["ECHO_FUZZ_ADMIN"]
PASSWORD = "correct horse 7"
PROGRESS_S = 15

# 422 of services: rules that need data, the time, or several fields at once; host/docs/ERRORS.md explains each. What is not here, and comes of
# a request that the schema allows, is a bound that the contract lacks.
RULES = {
    "cursor_invalid",
    "invalid_otp",
    "invalid_phone",
    "invalid_totp",
    # What is one emoji is a table of Unicode's.
    "not_an_emoji",
    # All reports name metrics of one enum; some have no labels.
    "no_labels",
    "not_for_direct",
    "one_of",
    "otp_exhausted",
    "otp_expired",
    "own_user",
    "password_reused",
    "phone_not_served",
    "quota_exceeded",
    "required",
    "unknown_message",
    "unknown_participant",
    # More bytes than the upload said that it has.
    "too_large",
    "too_many_points",
    "weak_password",
}
# By field (a pattern) and code: a count that depends on another field, times that are ahead or not long ago, options of this poll.
RULES_OF_FIELDS = [
    (r"participant_ids", "too_few"),
    (r"participant_ids", "too_many"),
    (r"send_at|expires_at|poll\.closes_at|events\[\d+\]\.at", "out_of_range"),
    (r"options\[\d+\]", "out_of_range"),
    (r"options", "too_many"),
    # A range of time that is too long, or ends before it begins.
    (r"from|to", "too_long"),
    (r"from|to", "unordered_range"),
    # What goes with a message depends on its type.
    (r"content|poll", "not_for_type"),
]


def ask(method, path, body=None, token=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data=data, method=method, headers=headers), timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def code_for(phone):
    for _ in range(200):
        for message in ask("GET", "/dev/outbox")["items"]:
            if message["to"] == phone and message.get("code"):
                return message["code"]
        time.sleep(0.05)
    raise SystemExit(f"no code for {phone} in /dev/outbox")


def register(name, phone=None):
    """With a number that nobody has yet, where none is given."""
    if phone:
        return phone, ask("POST", "/api/v1/auth/register", {"phone": phone, "password": PASSWORD, "name": name})
    for _ in range(20):
        phone = f"+1415555{random.SystemRandom().randrange(10_000):04}"
        try:
            return phone, ask("POST", "/api/v1/auth/register", {"phone": phone, "password": PASSWORD, "name": name})
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
    raise SystemExit("all numbers are taken")


def log_in(phone):
    tokens = ask("POST", "/api/v1/auth/login", {"phone": phone, "password": PASSWORD, "device": {"id": "fuzz"}})
    return {"phone": phone, "id": tokens["user_id"], "token": tokens["access_token"]}


def sign_up(name, phone=None):
    try:
        phone, registered = register(name, phone)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        return log_in(phone)
    verify = {"registration_id": registered["registration_id"], "phone": phone, "otp": code_for(phone), "device": {"id": "fuzz"}}
    tokens = ask("POST", "/api/v1/auth/verify-otp", verify)
    return {"phone": phone, "id": tokens["user_id"], "token": tokens["access_token"]}


def upload(token):
    """A small file, whole."""
    body = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--edge--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=edge", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(URL + "/api/v1/media/upload", data=body, method="POST", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["id"]


def begin_upload(token):
    headers = {"tus-resumable": "1.0.0", "upload-length": "1000000", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(URL + "/api/v1/media", method="POST", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["id"]


ADA = sign_up("Ada", ADMIN_PHONE if PERSON == "admin" else None)
BALA = sign_up("Bala")


def start():
    """A conversation with a message each, what else there can be of one's own, and their identifiers."""
    talk = ask("POST", "/api/v1/messages/conversations", {"type": "group", "participant_ids": [BALA["id"]], "title": "Talk"}, ADA["token"])
    known = [ADA["id"], BALA["id"], talk["id"]]
    for person in (ADA, BALA):
        message = {"conversation_id": talk["id"], "client_message_id": f"first {time.time()}", "type": "text", "content": "hello"}
        known.append(ask("POST", "/api/v1/messages", message, person["token"])["id"])
    poll = {"question": "Which?", "options": ["one", "other"]}
    message = {"conversation_id": talk["id"], "client_message_id": f"poll {time.time()}", "type": "poll", "poll": poll}
    known.append(ask("POST", "/api/v1/messages", message, ADA["token"])["id"])
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    message = {"conversation_id": talk["id"], "client_message_id": f"later {time.time()}", "type": "text", "content": "later", "send_at": later}
    known.append(ask("POST", "/api/v1/messages/scheduled", message, ADA["token"])["id"])
    known += [upload(ADA["token"]), begin_upload(ADA["token"])]
    return known


# Most identifiers that are made up are nobody's: half of them are of what is there.
schemathesis.openapi.format("uuid", strategies.one_of(strategies.sampled_from(start()), strategies.uuids().map(str)))

if PERSON != "nobody":

    # Again and again: what is tried may end the session.
    @schemathesis.auth(refresh_interval=None if PERSON == "leaver" else 5)
    class SignIn:
        def get(self, case, ctx):
            return log_in(ADA["phone"])["token"]

        def set(self, case, data, ctx):
            case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.serializer("application/offset+octet-stream")
def bytes_of_an_upload(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()


UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """A request may have headers that nobody named; one is not wrong for it."""
    if case.meta is not None and UNKNOWN_HEADER in {name.lower() for name in case.headers or {}}:
        object.__setattr__(case.meta.generation, "mode", schemathesis.GenerationMode.POSITIVE)


# --- How many -------------------------------------------------------------------------------------------------------------------------

COUNTED = collections.Counter()
LOCK = threading.Lock()
STARTED_AT = time.monotonic()
LAST_SAID = [STARTED_AT]


@schemathesis.hook
def after_call(ctx, case, response):
    with LOCK:
        COUNTED[response.status_code] += 1
        now = time.monotonic()
        if now - LAST_SAID[0] >= PROGRESS_S:
            LAST_SAID[0] = now
            print(f"... {COUNTED.total()} requests in {now - STARTED_AT:.0f} s", file=sys.stderr, flush=True)


@atexit.register
def write_counts():
    """For the program that started this one: how many requests, by the status of their answers."""
    with open(os.environ["ECHO_FUZZ_COUNTS"], "w", encoding="utf-8") as file:
        json.dump({str(status): count for status, count in sorted(COUNTED.items())}, file)


# --- What is refused ------------------------------------------------------------------------------------------------------------------


def is_rule(field, code):
    return code in RULES or any(code == other and re.fullmatch(pattern, field) for pattern, other in RULES_OF_FIELDS)


@schemathesis.check
def refused_by_a_rule_alone(ctx, response, case):
    """A request that the schema allows is refused by a rule, never for its form."""
    if response.status_code not in (400, 412, 413, 415, 422) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    errors = problem.get("errors") or [{"field": "", "code": problem["code"]}]
    wrong = [error for error in errors if not is_rule(error["field"], error["code"])]
    if wrong:
        raise AssertionError(f"the schema allows what is refused: {wrong}")
