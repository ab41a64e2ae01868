"""People and things at a host in development mode (ECHO_FUZZ_URL), made by its own API: so that identifiers in requests lead to something."""

import base64
import hashlib
import hmac
import itertools
import json
import os
import struct
import threading
import time
import urllib.error
import urllib.request
import uuid
import zlib

URL = os.environ["ECHO_FUZZ_URL"]
PERSON = os.environ["ECHO_FUZZ_AS"]
# The number to which the operator gave the role `admin`.
ADMIN_PHONE = os.environ["ECHO_FUZZ_ADMIN"]
# All persons of a run share the host: each has telephone numbers of its own.
FIRST_NUMBER = {"nobody": 1_000, "user": 3_000, "admin": 5_000, "socket": 7_000}[PERSON]
PASSWORD = "correct horse 7"
LOCK = threading.RLock()
NUMBERS = itertools.count(FIRST_NUMBER)
COUNTER = itertools.count(1)
# A minute, by pauses of 30 ms.
WAIT_TURNS = 2_000


def send(method, path, body=None, token=None, headers=None):
    headers = {"content-type": "application/json"} | (headers or {}) | ({"authorization": f"Bearer {token}"} if token else {})
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(URL + path, data=data, method=method, headers=headers), timeout=30)


def ask(method, path, body=None, token=None, headers=None):
    """The document of an answer; an exception where it is no success."""
    try:
        with send(method, path, body, token, headers) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
    return json.loads(text) if text else None


def next_phone():
    return f"+1415555{next(NUMBERS):04}"


def code_for(phone, other_than=None):
    """The newest code in /dev/outbox: it comes a moment after it was asked for."""
    for _ in range(WAIT_TURNS):
        codes = [message["code"] for message in ask("GET", "/dev/outbox")["items"] if message["to"] == phone and message.get("code")]
        if codes and codes[0] != other_than:
            return codes[0]
        time.sleep(0.03)
    raise RuntimeError(f"no code for {phone} in /dev/outbox")


class Person:
    """Somebody who has signed up."""

    def __init__(self, name, phone=None):
        self.phone, self.password, self.secret = phone or next_phone(), PASSWORD, None
        body = {"phone": self.phone, "password": PASSWORD, "name": name}
        verify = {"registration_id": ask("POST", "/api/v1/auth/register", body)["registration_id"], "phone": self.phone}
        tokens = ask("POST", "/api/v1/auth/verify-otp", verify | {"otp": code_for(self.phone), "device": {"id": "phone"}})
        self.id, self.token = tokens["user_id"], tokens["access_token"]

    def log_in(self, device="phone"):
        """A new session of the device, which ends the one that it had. All tokens."""
        body = {"phone": self.phone, "password": self.password, "device": {"id": device}}
        if self.secret:
            body["totp"] = code_of(self.secret)
        tokens = ask("POST", "/api/v1/auth/login", body)
        self.token = tokens["access_token"] if device == "phone" else self.token
        return tokens


def code_of(secret, period=0):
    """RFC 6238, thirty seconds, six digits."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30 + period), hashlib.sha1).digest()
    begin = digest[-1] & 15
    return f"{(int.from_bytes(digest[begin:begin + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def png():
    """A picture of 2 × 2."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0\xff\0\0\0\xff\0" * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def later(seconds=86_400):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


ADA = Person("Ada", ADMIN_PHONE if PERSON == "admin" else None)
BALA = Person("Bala")
CARL = Person("Carl")
# Is blocked and freed again.
DORA = Person("Dora")


# --- Things, each made anew -------------------------------------------------------------------------------------------------------------


def conversation(members=None):
    members = [BALA.id] if members is None else members
    return ask("POST", "/api/v1/messages/conversations", {"type": "group", "participant_ids": members, "title": "Talk"}, ADA.token)["id"]


def message(sender=None, talk=None, **fields):
    body = {"conversation_id": talk or one_of("conversation"), "client_message_id": str(uuid.uuid4()), "type": "text"}
    body |= fields or {"content": "hello"}
    return ask("POST", "/api/v1/messages", body, (sender or ADA).token)["id"]


def poll():
    return message(type="poll", poll={"question": "Which?", "options": ["one", "other"]})


def scheduled():
    body = {"conversation_id": one_of("conversation"), "client_message_id": str(uuid.uuid4()), "type": "text", "content": "later"}
    return ask("POST", "/api/v1/messages/scheduled", body | {"send_at": later()}, ADA.token)["id"]


def picture():
    edge = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    return ask("POST", "/api/v1/media/upload", edge + png() + b"\r\n--edge--\r\n", ADA.token, headers)["id"]


def upload():
    """A resumable one that has no bytes yet."""
    with send("POST", "/api/v1/media", b"", ADA.token, {"tus-resumable": "1.0.0", "upload-length": "1000000"}) as answer:
        return json.loads(answer.read())["id"]


def session():
    return ADA.log_in(f"device {next(COUNTER) % 5}")["session_id"]


def invite(talk, person):
    return ask("POST", f"/api/v1/messages/conversations/{talk}/invites", {}, person.token)["code"]


def others_conversation():
    """Of Bala, without Ada."""
    body = {"type": "group", "participant_ids": [CARL.id], "title": "Theirs"}
    return ask("POST", "/api/v1/messages/conversations", body, BALA.token)["id"]


def notification():
    """In Ada's list, where a message goes that mentions her; a moment after it was sent."""
    message(BALA, content="hello Ada", mentions=[ADA.id])
    for _ in range(WAIT_TURNS):
        items = ask("GET", "/api/v1/notifications?limit=1", token=ADA.token)["items"]
        if items:
            return items[0]["id"]
        time.sleep(0.03)
    raise RuntimeError("no notification has come")


MAKERS = {
    "notification": notification,
    "conversation": conversation,
    "message": message,
    "poll": poll,
    "scheduled": scheduled,
    "picture": picture,
    "upload": upload,
    "session": session,
}
MADE = {}


def one_of(kind):
    """The same for all who take nothing away from it."""
    with LOCK:
        if kind not in MADE:
            MADE[kind] = MAKERS[kind]()
        return MADE[kind]


def another(kind):
    """For one who may delete it."""
    with LOCK:
        return MAKERS[kind]()
