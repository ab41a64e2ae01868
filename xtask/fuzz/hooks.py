"""What schemathesis is told of Echo: who calls, identifiers of what is there, and which refusals of a request that its schema allows are rules
that need data. It signs people up at a host in development mode (ECHO_FUZZ_URL), as the person ECHO_FUZZ_AS: `user` or `nobody`."""

import json
import os
import random
import time
import urllib.error
import urllib.request

import schemathesis
from hypothesis import strategies

URL = os.environ["ECHO_FUZZ_URL"]
AS_USER = os.environ["ECHO_FUZZ_AS"] == "user"
PASSWORD = "correct horse 7"

# 422 of services: rules that need data, the time, or several fields at once; host/docs/ERRORS.md explains each. What is not here, and comes of
# a request that the schema allows, is a bound that the contract lacks.
RULES = {
    "cursor_invalid",
    "invalid_otp",
    "invalid_phone",
    "not_for_direct",
    "one_of",
    "otp_exhausted",
    "otp_expired",
    "own_user",
    "password_reused",
    "phone_not_served",
    "required",
    "unknown_message",
    "unknown_participant",
    "weak_password",
}
# A direct conversation is with one other: the count depends on another field.
RULES_OF_FIELDS = {("participant_ids", "too_few"), ("participant_ids", "too_many")}


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


def register(name):
    """With a number that nobody has yet."""
    for _ in range(20):
        phone = f"+1415555{random.SystemRandom().randrange(10_000):04}"
        try:
            return phone, ask("POST", "/api/v1/auth/register", {"phone": phone, "password": PASSWORD, "name": name})
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
    raise SystemExit("all numbers are taken")


def sign_up(name):
    phone, registered = register(name)
    verify = {"registration_id": registered["registration_id"], "phone": phone, "otp": code_for(phone), "device": {"id": "fuzz"}}
    tokens = ask("POST", "/api/v1/auth/verify-otp", verify)
    return {"phone": phone, "id": tokens["user_id"], "token": tokens["access_token"]}


ADA, BALA = sign_up("Ada"), sign_up("Bala")


def start():
    """A conversation with a message each, and their identifiers."""
    talk = ask("POST", "/api/v1/messages/conversations", {"type": "group", "participant_ids": [BALA["id"]], "title": "Talk"}, ADA["token"])
    known = [ADA["id"], BALA["id"], talk["id"]]
    for person in (ADA, BALA):
        message = {"conversation_id": talk["id"], "client_message_id": "first", "type": "text", "content": "hello"}
        known.append(ask("POST", "/api/v1/messages", message, person["token"])["id"])
    return known


# Most identifiers that are made up are nobody's: half of them are of what is there.
schemathesis.openapi.format("uuid", strategies.one_of(strategies.sampled_from(start()), strategies.uuids().map(str)))

if AS_USER:

    @schemathesis.auth(refresh_interval=5)
    class SignIn:
        """Again and again: what is tried may end the session."""

        def get(self, case, ctx):
            login = {"phone": ADA["phone"], "password": PASSWORD, "device": {"id": "fuzz"}}
            return ask("POST", "/api/v1/auth/login", login)["access_token"]

        def set(self, case, data, ctx):
            case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.check
def refused_by_a_rule_alone(ctx, response, case):
    """A request that the schema allows is refused by a rule, never for its form."""
    if response.status_code not in (400, 422) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    errors = problem.get("errors") or [{"field": "", "code": problem["code"]}]
    wrong = [error for error in errors if error["code"] not in RULES and (error["field"], error["code"]) not in RULES_OF_FIELDS]
    if wrong:
        raise AssertionError(f"the schema allows what is refused: {wrong}")
