"""Frames made from /asyncapi.json, valid and not, sent to a socket of one's own: each is answered by a reply or by an error that is documented, what the
host sends is what the document says, and the socket stays open. ECHO_FUZZ_SEED and ECHO_FUZZ_EXAMPLES (frames of each type, valid and invalid each)."""

import collections
import copy
import json
import os
import sys
import time

import hypothesis
import jsonschema_rs
import schemathesis
import websocket

import example_data as data
from example_data import ADA, BALA
from known_requests import by_name
from refusals import check_problem, not_by_rule

SEED, EXAMPLES = int(os.environ["ECHO_FUZZ_SEED"]), int(os.environ["ECHO_FUZZ_EXAMPLES"])
ANSWER_WAIT_S = 30
# Below the frames per second that one socket may send.
PAUSE_S = 0.006
DOCUMENT = data.ask("GET", "/asyncapi.json")
MESSAGES = DOCUMENT["components"]["messages"]
CLIENT_TYPES = [name.removeprefix("client_") for name in MESSAGES if name.startswith("client_")]
COUNTED = collections.Counter()
FINDINGS, FOUND_OF, FINDINGS_SHOWN_MAX = [], collections.Counter(), 5


def validator(name):
    return jsonschema_rs.validator_for({"$ref": f"#/components/messages/{name}/payload", "components": DOCUMENT["components"]})


VALIDATORS = {name: validator(name) for name in MESSAGES}


class Closed(Exception):
    pass


class Socket:
    def __init__(self):
        self.number = 0
        self.open()

    def open(self):
        token = ADA.log_in()["access_token"]
        self.socket = websocket.create_connection(data.URL.replace("http", "ws", 1) + "/ws", header=[f"authorization: Bearer {token}"], timeout=ANSWER_WAIT_S)
        first = self.receive()
        assert first["type"] == "connection_ack", first

    def receive(self):
        """The next frame; it is what the document says."""
        opcode, content = self.socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(f"the host closed the socket: {int.from_bytes(content[:2], 'big')} {content[2:].decode()}")
        frame = json.loads(content)
        # A reply is looked at by who knows what it answers.
        if frame["type"] != "reply":
            assert frame["type"] in VALIDATORS, f"the document has no frame {frame['type']}"
            VALIDATORS[frame["type"]].validate(frame)
        return frame

    def ask(self, frame, opcode=websocket.ABNF.OPCODE_TEXT, key=None):
        """The answer: with this id, or any error where there is none to be had."""
        time.sleep(PAUSE_S)
        self.socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame), opcode)
        while True:
            answer = self.receive()
            if answer["type"] in ("reply", "error") and (key is None or answer.get("id") == key):
                return answer


def described():
    """The frames' payloads as bodies of an OpenAPI document, which schemathesis makes requests of."""
    paths = {}
    for kind in CLIENT_TYPES:
        payload = MESSAGES[f"client_{kind}"]["payload"]["properties"]["payload"]
        body = {"required": True, "content": {"application/json": {"schema": payload}}}
        paths[f"/{kind}"] = {"post": {"requestBody": body, "responses": {"200": {"description": "OK"}}}}
    document = {"openapi": "3.1.0", "info": {"title": "Frames", "version": "1"}, "paths": paths, "components": DOCUMENT["components"]}
    return schemathesis.openapi.from_dict(document)


def complete(kind, payload, number):
    """Three of four valid payloads name what there is."""
    if not isinstance(payload, dict) or number % 4 == 0:
        return payload
    payload = {name: by_name(name, value) for name, value in copy.deepcopy(payload).items()}
    if kind == "auth":
        payload["access_token"] = ADA.token
    elif kind == "ack":
        payload["seq"] = 0
    elif kind == "read_receipt":
        payload["up_to_seq"] = 1
    elif kind == "message":
        payload = {name: payload[name] for name in ("conversation_id", "client_message_id")} | {"type": "text", "content": f"hello {number}"}
    return payload


def check(socket, kind, payload, is_valid):
    socket.number += 1
    key = f"{kind}-{socket.number}"
    answer = socket.ask({"type": kind, "id": key, "payload": payload}, key=key)
    COUNTED[kind, "reply" if answer["type"] == "reply" else str(answer["payload"]["status"])] += 1
    if answer["type"] == "reply":
        assert is_valid, "what the schema does not allow is taken"
        VALIDATORS[f"reply_{kind}"].validate(answer)
        return
    problem = answer["payload"]
    check_problem(problem)
    assert problem["status"] < 500, problem
    if is_valid and problem["status"] in (400, 422):
        # An `ack` of what was not sent to this device is refused by a rule too.
        wrong = [error for error in not_by_rule(problem) if error["code"] != "not_sent"]
        assert not wrong, f"the schema allows what is refused: {wrong}"


def of_every_type(socket):
    schema = described()
    for kind in CLIENT_TYPES:
        for is_valid in (True, False):
            mode = schemathesis.GenerationMode.POSITIVE if is_valid else schemathesis.GenerationMode.NEGATIVE
            if not is_valid and kind == "ping":
                continue  # Whatever it brings is nothing to it.
            judge = jsonschema_rs.validator_for(
                MESSAGES[f"client_{kind}"]["payload"]["properties"]["payload"] | {"components": DOCUMENT["components"]}
            )

            @hypothesis.seed(SEED)
            @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
            @hypothesis.given(case=schema[f"/{kind}"]["POST"].as_strategy(generation_mode=mode))
            def each(case):
                payload = complete(kind, case.body, socket.number) if is_valid else case.body
                # Not JSON, or valid after all.
                if not is_json(payload) or judge.is_valid(payload) != is_valid:
                    return
                # All are sent, whatever one of them shows: the socket's state is nothing that could be tried again.
                try:
                    check(socket, kind, payload, is_valid)
                except Exception as error:
                    found(f"{kind} {json.dumps(payload)[:2_000]}: {str(error)[:2_000]}", kind)
                    if isinstance(error, (Closed, OSError, websocket.WebSocketException)):
                        socket.open()

            each()


def found(finding, kind):
    """So many of a type as a reader wants."""
    FOUND_OF[kind] += 1
    if FOUND_OF[kind] <= FINDINGS_SHOWN_MAX:
        FINDINGS.append(finding)


def is_json(value):
    try:
        json.dumps(value, allow_nan=False)
        return True
    except (TypeError, ValueError):
        return False


LONG_ID = "x" * 200
# What is no frame, and the code of the error that answers it.
NO_FRAMES = [
    ("", "bad_frame"),
    ("nonsense", "bad_frame"),
    ("null", "bad_frame"),
    ("[]", "bad_frame"),
    ("1", "bad_frame"),
    ('"ping"', "bad_frame"),
    ("{}", "bad_frame"),
    ('{"type": 1}', "bad_frame"),
    ('{"type": null}', "bad_frame"),
    ('{"type": "ping", "type": "ping"}', "bad_frame"),
    ('{"type": "ping", "more": 1}', "bad_frame"),
    ('{"type": "ping", "id": {}}', "bad_frame"),
    ('{"type": "ping", "id": true}', "bad_frame"),
    (f'{{"type": "ping", "id": "{LONG_ID}"}}', "bad_frame"),
    ('{"type": "ping"', "bad_frame"),
    ('{"type": "ping"} {"type": "ping"}', "bad_frame"),
    ('{"type": "\\ud800"}', "bad_frame"),
    ('{"type": ""}', "unknown_type"),
    ('{"type": "connection_ack"}', "unknown_type"),
    ('{"type": "reply", "id": "1", "payload": {}}', "unknown_type"),
    ('{"type": "PING"}', "unknown_type"),
    ('{"type": "message", "payload": null}', None),
    ('{"type": "message", "payload": []}', None),
    ('{"type": "message"}', None),
    ('{"type": "ack", "payload": {"seq": 1e400}}', None),
    ('{"type": "ack", "payload": {"seq": -1}}', "out_of_range"),
    ('{"type": "ack", "payload": {"seq": 1, "seq": 1}}', "duplicate_field"),
]


def no_frames(socket):
    for text, code in NO_FRAMES:
        try:
            answer = socket.ask(text)
            assert answer["type"] == "error", answer
            check_problem(answer["payload"])
            codes = [answer["payload"]["code"]] + [error["code"] for error in answer["payload"].get("errors", [])]
            assert code is None or code in codes, f"{codes}, not {code}"
            assert answer["payload"]["status"] < 500, answer["payload"]
            COUNTED["no frame", str(answer["payload"]["status"])] += 1
        except (AssertionError, Closed) as error:
            FINDINGS.append(f"{text}: {error}")
            if isinstance(error, Closed):
                socket.open()
    answer = socket.ask(b"\x00\xff", websocket.ABNF.OPCODE_BINARY)
    if answer["payload"].get("code") != "binary_frame":
        FINDINGS.append(f"a binary frame: {answer}")


def closes(socket):
    """The documented ones that a client causes by what it sends."""
    for name, content, opcode, code in [
        ("a frame that is too large", '{"type": "ping", "payload": "' + "x" * 70_000 + '"}', websocket.ABNF.OPCODE_TEXT, 4413),
        ("text that is no UTF-8", b"\xff\xfe", websocket.ABNF.OPCODE_TEXT, 1007),
    ]:
        try:
            socket.ask(content, opcode)
            FINDINGS.append(f"{name}: the socket stays")
        except Closed as closed:
            if f" {code} " not in str(closed):
                FINDINGS.append(f"{name}: {closed}")
        socket.open()


def main():
    socket = Socket()
    of_every_type(socket)
    no_frames(socket)
    closes(socket)
    by_kind = collections.defaultdict(dict)
    for (kind, status), count in sorted(COUNTED.items()):
        by_kind[kind][status] = count
    for kind, counts in by_kind.items():
        print(f"    {kind}: " + ", ".join(f"{count} × {status}" for status, count in counts.items()))
    for kind in CLIENT_TYPES:
        if "reply" not in by_kind[kind]:
            FINDINGS.append(f"no frame of the type {kind} was taken")
    print(f"{COUNTED.total()} frames")
    for finding in FINDINGS:
        print(f"FOUND {finding}", file=sys.stderr)
    sys.exit(1 if FINDINGS else 0)


if __name__ == "__main__":
    main()
