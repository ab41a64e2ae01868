"""Requests that lead somewhere: schemathesis makes a valid one, and what only this host can know of it (identifiers, codes, numbers) is put in."""

import collections
import copy
import uuid

import example_data as data
from example_data import ADA, BALA, CARL, DORA, another, ask, one_of

AUTH, MEDIA, MESSAGES, NOTIFICATIONS, USERS = (f"/api/v1/{name}" for name in ("auth", "media", "messages", "notifications", "users"))

# What `{id}` is, by the beginning of the path: the first that fits. Deleted things are made anew for each request.
KINDS = [
    (f"{AUTH}/sessions/", "session"),
    (f"{MEDIA}/", "picture"),
    (f"{MESSAGES}/conversations/", "conversation"),
    (f"{MESSAGES}/scheduled/", "scheduled"),
    (f"{MESSAGES}/", "message"),
    (f"{USERS}/", "person"),
]
# By the name of a field or parameter, wherever it stands.
NAMES = {
    "conversation_id": lambda: one_of("conversation"),
    "message_id": lambda: one_of("message"),
    "reply_to": lambda: one_of("message"),
    "thread_id": lambda: one_of("message"),
    "media_id": lambda: one_of("picture"),
    "user_id": lambda: CARL.id,
    "user_ids": lambda: [BALA.id, CARL.id],
    "ids": lambda: [BALA.id, CARL.id],
    "participant_ids": lambda: [BALA.id, CARL.id],
    "mentions": lambda: [BALA.id],
}
# Values that the contract's pattern allows and that exist in a table of the world.
WORLD = {"timezone": "Europe/Berlin", "emoji": "👍"}
# Of the host's answers, so that what schemathesis took from one stays.
SEEN = set()


class Visitor:
    """Somebody whose sessions may end, whose password may change, whose account may go: never the one who makes the other requests."""

    def __init__(self):
        self.person = None

    def get(self):
        with data.LOCK:
            if self.person is None:
                self.person = data.Person("Visitor")
            return self.person

    def is_gone(self):
        with data.LOCK:
            self.person = None


VISITOR = Visitor()
# Called as the visitor, whatever with.
OF_THE_VISITOR = {
    f"DELETE {AUTH}/account",
    f"DELETE {AUTH}/sessions/{{id}}",
    f"DELETE {AUTH}/totp",
    f"POST {AUTH}/logout",
    f"POST {AUTH}/logout-all",
    f"POST {AUTH}/password/change",
    f"POST {AUTH}/totp",
    f"POST {AUTH}/totp/confirm",
}
# After a success the next visitor is another.
ENDS_THE_VISITOR = {f"DELETE {AUTH}/account", f"POST {AUTH}/password/change", f"POST {AUTH}/totp/confirm"}


CALLS = collections.Counter()


def complete(case):
    """Three of four valid requests of a route, the first among them; the others stay as they were made."""
    label = case.operation.label
    CALLS[label] += 1
    if CALLS[label] % 4 == 0:
        return
    # Only what changes is written: schemathesis looks anew at what was.
    replace(case, "path_parameters", {name: in_path(label, name, value) for name, value in (case.path_parameters or {}).items()})
    query = (case.query or {}).items()
    replace(case, "query", {name: by_name(name, value) for name, value in query if name != "cursor" or value in SEEN})
    if isinstance(case.body, dict):
        replace(case, "body", {name: by_name(name, value) for name, value in copy.deepcopy(case.body).items()})
    if label in FILLED and (isinstance(case.body, dict) or "json" not in (case.media_type or "")):
        FILLED[label](case)


def replace(case, part, made):
    if made != (getattr(case, part) or {}):
        setattr(case, part, made)


def is_uuid(value):
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False


def in_path(label, name, value):
    if value in SEEN:
        return value
    if name == "id":
        path = label.split(" ", 1)[1]
        kind = next(kind for beginning, kind in KINDS if path.startswith(beginning))
        if kind == "person":
            return BALA.id
        takes_away = label.startswith("DELETE ") and path.endswith("{id}")
        return another(kind) if takes_away else one_of(kind)
    if name == "user_id":
        return DORA.id if "/blocked/" in label else CARL.id
    return by_name(name, value)


def by_name(name, value):
    if name in WORLD and isinstance(value, str):
        return WORLD[name]
    if isinstance(value, dict):
        return {name: by_name(name, inner) for name, inner in value.items()}
    known = NAMES.get(name)
    if known is None or (is_uuid(value) and value in SEEN):
        return value
    if isinstance(value, list):
        return known() if any(map(is_uuid, value)) else value
    # A list in a query: `a,b`.
    if not isinstance(value, str) or not any(map(is_uuid, value.split(","))):
        return value
    made = known()
    return ",".join(made) if isinstance(made, list) else made


# --- By route ---------------------------------------------------------------------------------------------------------------------------


def register(case):
    case.body |= {"phone": data.next_phone(), "password": data.PASSWORD}


def registered(case):
    phone = data.next_phone()
    body = {"phone": phone, "password": data.PASSWORD, "name": "Eve"}
    case.body |= {"phone": phone, "registration_id": ask("POST", f"{AUTH}/register", body)["registration_id"]}
    return phone


def verify_otp(case):
    case.body["otp"] = data.code_for(registered(case))


def log_in(case):
    case.body |= {"phone": CARL.phone, "password": CARL.password}
    case.body.pop("totp", None)


def refresh(case):
    case.body["refresh_token"] = CARL.log_in("refreshed")["refresh_token"]


def reset_password(case):
    person = data.Person("Forgetful")
    before = data.code_for(person.phone)
    answer = ask("POST", f"{AUTH}/password/forgot", {"phone": person.phone})
    case.body |= {"phone": person.phone, "new_password": "another horse 8", "otp": data.code_for(person.phone, before)}
    case.body["reset_id"] = answer["reset_id"]


def change_password(case):
    case.body |= {"current_password": VISITOR.get().password, "new_password": "another horse 8"}


def confirm_totp(case):
    visitor = VISITOR.get()
    secret = ask("POST", f"{AUTH}/totp", {"password": visitor.password}, visitor.token)["secret"]
    case.body["code"] = data.code_of(secret)


def end_totp(case):
    visitor = VISITOR.get()
    secret = ask("POST", f"{AUTH}/totp", {"password": visitor.password}, visitor.token)["secret"]
    ask("POST", f"{AUTH}/totp/confirm", {"code": data.code_of(secret)}, visitor.token)
    # A code is good for one use, and for the period beside its own.
    case.query = {"code": data.code_of(secret, 1)}
    VISITOR.is_gone()


def with_text(case):
    """A text, in place of what does not go together."""
    for name in ("contact", "location", "media_id", "poll", "thread_id", "mentions", "metadata"):
        case.body.pop(name, None)
    case.body |= {"type": "text", "content": case.body.get("content") or "hello", "client_message_id": str(uuid.uuid4())}
    case.body["conversation_id"] = one_of("conversation")


def schedule(case):
    with_text(case)
    case.body["send_at"] = data.later()


def begin_conversation(case):
    case.body |= {"participant_ids": [BALA.id]}
    if case.body["type"] == "direct":
        case.body.pop("title", None)
        case.body.pop("description", None)
    else:
        case.body["title"] = case.body.get("title") or "Talk"


def own_scheduled(case):
    case.body["send_at"] = data.later()


def vote(case):
    case.path_parameters["id"], case.body["options"] = one_of("poll"), [0]


def close(case):
    case.path_parameters["id"] = another("poll")


def member(case):
    case.path_parameters |= {"id": another("conversation"), "user_id": BALA.id}


def reaction(case):
    ask("PUT", f"{MESSAGES}/{case.path_parameters['id']}/reactions/%F0%9F%91%8D", token=ADA.token)


def draft(case):
    ask("PUT", f"{MESSAGES}/conversations/{case.path_parameters['id']}/draft", {"content": "not yet"}, ADA.token)


def join(case):
    case.path_parameters["code"] = data.invite(data.others_conversation(), BALA)


def end_invite(case):
    talk = another("conversation")
    case.path_parameters |= {"id": talk, "code": data.invite(talk, ADA)}


def add_members(case):
    case.path_parameters["id"], case.body["user_ids"] = another("conversation"), [CARL.id]


def read(case):
    case.body |= {"conversation_id": one_of("conversation"), "up_to_seq": 1}


def resumable(case):
    case.path_parameters["id"] = another("upload")
    case.headers["Upload-Offset"] = "0"


def content(case):
    """Nobody has a signed address."""
    case.path_parameters["id"] = one_of("picture")
    for name in ("expires", "signature"):
        case.query.pop(name, None)
    if data.PERSON == "nobody":
        signed = ask("GET", f"{MEDIA}/{one_of('picture')}", token=ADA.token)["content_url"]
        case.query |= dict(pair.split("=", 1) for pair in signed.split("?", 1)[1].split("&"))


def device(case):
    case.body |= {"provider": "fcm", "platform": "android", "token": f"token-{CALLS[case.operation.label]}"}


def registered_device(case):
    token = f"token-{CALLS[case.operation.label]}"
    ask("POST", f"{NOTIFICATIONS}/devices", {"provider": "fcm", "platform": "android", "token": token}, ADA.token)
    case.query["token"] = token


def contact(case):
    case.body.pop("phone", None)
    case.body["user_id"] = CARL.id


def known_contact(case):
    contact_of = {"user_id": CARL.id}
    try:
        ask("POST", f"{USERS}/contacts", contact_of, ADA.token)
    except RuntimeError:
        pass
    case.path_parameters["user_id"] = CARL.id


def blocked(case):
    ask("PUT", f"{USERS}/blocked/{DORA.id}", token=ADA.token)


def report(case):
    case.body.pop("message_id", None)
    case.body["user_id"] = CARL.id


def time_range(case):
    for name in ("from", "to", "step"):
        case.query.pop(name, None)
    case.query.pop("label", None)


def top(case):
    time_range(case)
    # One that has labels.
    case.query["metric"] = "messages"


FILLED = {
    f"DELETE {AUTH}/totp": end_totp,
    f"POST {AUTH}/login": log_in,
    f"POST {AUTH}/password/change": change_password,
    f"POST {AUTH}/password/forgot": lambda case: case.body.update(phone=data.Person("Forgetful").phone),
    f"POST {AUTH}/password/reset": reset_password,
    f"POST {AUTH}/refresh": refresh,
    f"POST {AUTH}/register": register,
    f"POST {AUTH}/resend-otp": registered,
    f"POST {AUTH}/totp": lambda case: case.body.update(password=VISITOR.get().password),
    f"POST {AUTH}/totp/confirm": confirm_totp,
    f"POST {AUTH}/verify-otp": verify_otp,
    f"DELETE {AUTH}/sessions/{{id}}": lambda case: case.path_parameters.update(id=VISITOR.get().log_in("other")["session_id"]),
    "GET /api/v1/analytics/summary": time_range,
    "GET /api/v1/analytics/timeseries": time_range,
    "GET /api/v1/analytics/top": top,
    "GET /api/v1/location/lookup": lambda case: case.query.update(phone=("+493012345678", "+442071838750", "+14155550123")[CALLS[case.operation.label] % 3]),
    # Beyond its end there is no feed.
    "GET /api/v1/sync": lambda case: case.query.pop("since", None),
    f"PATCH {MEDIA}/{{id}}": resumable,
    f"GET {MEDIA}/{{id}}/content": content,
    f"GET {MEDIA}/{{id}}/thumbnail": content,
    f"POST {MESSAGES}": with_text,
    f"POST {MESSAGES}/conversations": begin_conversation,
    f"GET {MESSAGES}/conversations/{{id}}/draft": draft,
    f"DELETE {MESSAGES}/conversations/{{id}}/draft": draft,
    f"DELETE {MESSAGES}/conversations/{{id}}/invites/{{code}}": end_invite,
    # Of one there are only so many.
    f"POST {MESSAGES}/conversations/{{id}}/invites": lambda case: case.path_parameters.update(id=another("conversation")),
    f"POST {MESSAGES}/conversations/{{id}}/participants": add_members,
    f"DELETE {MESSAGES}/conversations/{{id}}/participants/{{user_id}}": member,
    f"PATCH {MESSAGES}/conversations/{{id}}/participants/{{user_id}}": member,
    f"POST {MESSAGES}/delivered": read,
    f"POST {MESSAGES}/read": read,
    f"POST {MESSAGES}/join/{{code}}": join,
    f"POST {MESSAGES}/scheduled": schedule,
    f"PATCH {MESSAGES}/scheduled/{{id}}": own_scheduled,
    f"POST {MESSAGES}/{{id}}/close": close,
    f"PUT {MESSAGES}/{{id}}/vote": vote,
    f"DELETE {MESSAGES}/{{id}}/reactions/{{emoji}}": reaction,
    f"POST {NOTIFICATIONS}/devices": device,
    f"POST {NOTIFICATIONS}/read": lambda case: case.body.update(up_to=one_of("notification")),
    f"DELETE {NOTIFICATIONS}/devices": registered_device,
    f"POST {USERS}/contacts": contact,
    f"PATCH {USERS}/contacts/{{user_id}}": known_contact,
    f"DELETE {USERS}/contacts/{{user_id}}": known_contact,
    f"GET {USERS}/blocked/{{user_id}}": blocked,
    f"POST {USERS}/contacts/match": lambda case: case.body.update(phones=[BALA.phone, CARL.phone]),
    f"POST {USERS}/reports": report,
}
