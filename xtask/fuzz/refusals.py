"""Which failures are documented (host/docs/ERRORS.md), and which refusals of what a schema allows are rules that need data."""

import collections
import os
import re

# host/docs/ERRORS.md: lines of `| 401, 422 | `code` · `code` | …`.
STATUSES_OF = collections.defaultdict(set)
with open(os.environ["ECHO_FUZZ_ERRORS"], encoding="utf-8") as page:
    for line in page:
        if row := re.fullmatch(r"\| ([0-9, ]+) \| (`[^|]+`) \|.*\n?", line):
            for code in re.findall(r"`(\w+)`", row[2]):
                STATUSES_OF[code] |= {int(status) for status in row[1].split(", ")}
assert len(STATUSES_OF) > 100, "the table of error codes is not where it was"

# 422 of services: rules that need data, the time, or several fields at once; host/docs/ERRORS.md explains each. What is not here, and comes of
# a request that the schema allows, is a bound that the contract lacks.
RULES = {
    "cursor_invalid",
    # A thread begins with no message that is in one.
    "in_a_thread",
    "invalid_otp",
    "invalid_phone",
    # A document in a text: the contract has no type for it.
    "invalid_subscription",
    # What a push token looks like, its provider decides.
    "invalid_token",
    # The table of IANA.
    "invalid_timezone",
    "invalid_totp",
    # What is one emoji is a table of Unicode's.
    "not_an_emoji",
    # All reports name metrics of one enum; some have no labels.
    "no_labels",
    # Of the file that the identifier names.
    "no_thumbnail",
    "not_for_direct",
    "one_of",
    "otp_exhausted",
    "otp_expired",
    "own_user",
    "password_reused",
    "phone_not_served",
    "quota_exceeded",
    "required",
    "unknown_media",
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


def check_problem(problem):
    """The code stands on the page with this status, and those of fields stand there too."""
    status, code = problem["status"], problem["code"]
    assert status in STATUSES_OF[code], f"ERRORS.md has no {status} `{code}`"
    undocumented = {error["code"] for error in problem.get("errors", []) if error["code"] not in STATUSES_OF}
    assert not undocumented, f"ERRORS.md has no code {undocumented}"


def is_rule(field, code):
    return code in RULES or any(code == other and re.fullmatch(pattern, field) for pattern, other in RULES_OF_FIELDS)


def not_by_rule(problem):
    """What of a refusal is no rule: the form of the request."""
    errors = problem.get("errors") or [{"field": "", "code": problem["code"]}]
    return [error for error in errors if not is_rule(error["field"], error["code"])]
