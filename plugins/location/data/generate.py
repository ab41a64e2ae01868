"""Makes numbering.bin, the table that the location service looks numbers up in, and expectations.tsv, which its tests compare with.

Source: the PyPI packages `phonenumbers` (libphonenumber's metadata) and `tzdata` (the IANA time zone database), pinned in requirements.txt.
How to run it and what the file looks like: README.md beside this file.
"""

import collections
import functools
import pathlib
import random
import struct
import sys

import phonenumbers
import tzdata
from phonenumbers import carrier, geocoder, timezone
from phonenumbers.carrierdata import CARRIER_DATA
from phonenumbers.geodata import GEOCODE_DATA
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.phonenumberutil import (
    _GEO_MOBILE_COUNTRIES,
    COUNTRY_CODE_TO_REGION_CODE,
    PhoneNumberType,
    country_mobile_token,
    is_number_type_geographical,
)
from phonenumbers.tzdata import TIMEZONE_DATA

try:
    from re import _constants as sre, _parser as sre_parse
except ImportError:  # before Python 3.11
    import sre_constants as sre
    import sre_parse

HERE = pathlib.Path(__file__).parent
FORMAT = b"ECHONUM2"
# E.164: calling code and national number together.
DIGITS_MAX = 15
NONE = 0xFF
FLAG_GEOGRAPHIC_MOBILE = 1
NAMES_PER_BLOCK = 16
# Longer descriptions enumerate a dozen villages; that is no name of a place.
NAME_CHARS_MAX = 100

# The order is that of `number-type` in wit/deps/location/location.wit.
TYPES = [
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.TOLL_FREE,
    PhoneNumberType.PREMIUM_RATE,
    PhoneNumberType.SHARED_COST,
    PhoneNumberType.VOIP,
    PhoneNumberType.PERSONAL_NUMBER,
    PhoneNumberType.PAGER,
    PhoneNumberType.UAN,
    PhoneNumberType.VOICEMAIL,
    PhoneNumberType.UNKNOWN,
]
# libphonenumber's order of asking: the first kind that matches is the number's.
KINDS = [
    ("premium_rate", PhoneNumberType.PREMIUM_RATE),
    ("toll_free", PhoneNumberType.TOLL_FREE),
    ("shared_cost", PhoneNumberType.SHARED_COST),
    ("voip", PhoneNumberType.VOIP),
    ("personal_number", PhoneNumberType.PERSONAL_NUMBER),
    ("pager", PhoneNumberType.PAGER),
    ("uan", PhoneNumberType.UAN),
    ("voicemail", PhoneNumberType.VOICEMAIL),
]

# North American places are "Town, XX" at their finest; the service answers with the state or province.
STATES = {
    "AB": "Alberta", "AK": "Alaska", "AL": "Alabama", "AR": "Arkansas", "AZ": "Arizona", "BC": "British Columbia", "CA": "California",
    "CO": "Colorado", "CT": "Connecticut", "DC": "Washington D.C.", "DE": "Delaware", "FL": "Florida", "GA": "Georgia", "HI": "Hawaii",
    "IA": "Iowa", "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "KS": "Kansas", "KY": "Kentucky", "LA": "Louisiana",
    "MA": "Massachusetts", "MB": "Manitoba", "MD": "Maryland", "ME": "Maine", "MI": "Michigan", "MN": "Minnesota", "MO": "Missouri",
    "MS": "Mississippi", "MT": "Montana", "NB": "New Brunswick", "NC": "North Carolina", "ND": "North Dakota", "NE": "Nebraska",
    "NH": "New Hampshire", "NJ": "New Jersey", "NL": "Newfoundland and Labrador", "NM": "New Mexico", "NS": "Nova Scotia",
    "NT": "Northwest Territories", "NU": "Nunavut", "NV": "Nevada", "NY": "New York", "OH": "Ohio", "OK": "Oklahoma", "ON": "Ontario",
    "OR": "Oregon", "PA": "Pennsylvania", "PE": "Prince Edward Island", "QC": "Quebec", "RI": "Rhode Island", "SC": "South Carolina",
    "SD": "South Dakota", "SK": "Saskatchewan", "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VA": "Virginia", "VI": None,
    "VT": "Vermont", "WA": "Washington", "WI": "Wisconsin", "WV": "West Virginia", "WY": "Wyoming", "YT": "Yukon",
}
SPELLINGS = {"Washington State": "Washington", "British Colombia": "British Columbia"}


def region_name(calling_code, description):
    """The name that the service answers with for a description of the data set, or None."""
    if len(description) > NAME_CHARS_MAX:
        return None
    if calling_code == 1 and ", " in description:
        return STATES[description.rsplit(", ", 1)[1]]
    if calling_code == 1:
        return SPELLINGS.get(description, description)
    return description


def split(digits):
    """(calling code, the rest)"""
    for length in (1, 2, 3):
        if int(digits[:length]) in COUNTRY_CODE_TO_REGION_CODE:
            return int(digits[:length]), digits[length:]
    return None, digits


# --- The numbering plans: national number patterns into one automaton over the digits ------------------------------------------------


class Nfa:
    """States with arcs over sets of digits (10-bit masks) and empty arcs."""

    def __init__(self):
        self.arcs, self.empty = [], []

    def state(self):
        self.arcs.append([])
        self.empty.append([])
        return len(self.arcs) - 1

    def add(self, parsed, start):
        for op, argument in parsed:
            start = self.add_item(op, argument, start)
        return start

    def add_item(self, op, argument, start):
        if op is sre.LITERAL:
            return self.arc(start, 1 << int(chr(argument)))
        if op is sre.IN:
            return self.arc(start, digits_of(argument))
        if op is sre.ANY:
            return self.arc(start, 0x3FF)
        if op is sre.SUBPATTERN:
            return self.add(argument[-1], start)
        if op is sre.BRANCH:
            end = self.state()
            for branch in argument[1]:
                self.empty[self.add(branch, start_of(self, start))].append(end)
            return end
        if op is sre.MAX_REPEAT:
            least, most, item = argument
            assert most <= 20, "an unbounded pattern"
            for _ in range(least):
                start = self.add(item, start)
            end = self.state()
            self.empty[start].append(end)
            for _ in range(most - least):
                start = self.add(item, start)
                self.empty[start].append(end)
            return end
        raise ValueError(f"no such thing expected in a pattern: {op}")

    def arc(self, start, mask):
        end = self.state()
        self.arcs[start].append((mask, end))
        return end

    def closure(self, states):
        seen, todo = set(states), list(states)
        while todo:
            for target in self.empty[todo.pop()]:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return frozenset(seen)


def start_of(nfa, start):
    branch = nfa.state()
    nfa.empty[start].append(branch)
    return branch


def digits_of(items):
    mask = 0
    for op, argument in items:
        if op is sre.LITERAL:
            mask |= 1 << int(chr(argument))
        elif op is sre.RANGE:
            for character in range(argument[0], argument[1] + 1):
                mask |= 1 << int(chr(character))
        elif op is sre.CATEGORY and argument is sre.CATEGORY_DIGIT:
            mask = 0x3FF
        else:
            raise ValueError(f"no such thing expected in a set: {op}")
    return mask


def metadata_of(region, calling_code):
    if region == "001":
        return PhoneMetadata.metadata_for_nongeo_region(calling_code, None)
    return PhoneMetadata.metadata_for_region(region, None)


class Plan:
    """All regions of one calling code: which region and type a national number belongs to."""

    def __init__(self, calling_code, labels):
        self.nfa, self.final, self.labels = Nfa(), {}, labels
        self.regions = []
        starts = []
        self.only = len(COUNTRY_CODE_TO_REGION_CODE[calling_code]) == 1
        for region in COUNTRY_CODE_TO_REGION_CODE[calling_code]:
            metadata = metadata_of(region, calling_code)
            assert metadata is not None, region
            self.regions.append((region, metadata))
            for kind in ["general_desc", "fixed_line", "mobile"] + [kind for kind, _ in KINDS]:
                description = getattr(metadata, kind)
                if description is not None and description.national_number_pattern:
                    starts.append(self.pattern(description.national_number_pattern, (region, kind)))
            if metadata.leading_digits is not None and not self.only:
                starts.append(self.pattern(metadata.leading_digits, (region, "leading"), and_more=True))
        self.start = self.nfa.closure(starts)
        self.memo = {}

    def pattern(self, text, tag, and_more=False):
        start = self.nfa.state()
        end = self.nfa.add(sre_parse.parse(text), start)
        if and_more:
            self.nfa.arcs[end].append((0x3FF, end))
        self.final[end] = tag
        return start

    def label(self, states, length):
        tags = {self.final[state] for state in states if state in self.final}
        for region, metadata in self.regions:
            kind = self.kind(tags, region, metadata, length)
            by_leading_digits = metadata.leading_digits is not None and not self.only
            if (region, "leading") in tags if by_leading_digits else kind != PhoneNumberType.UNKNOWN:
                return self.labels.setdefault((region, kind), len(self.labels))
        return None

    def kind(self, tags, region, metadata, length):
        def matches(kind):
            description = getattr(metadata, kind)
            if description is None or (description.possible_length and length not in description.possible_length):
                return False
            return (region, kind) in tags

        if not matches("general_desc"):
            return PhoneNumberType.UNKNOWN
        for kind, number_type in KINDS:
            if matches(kind):
                return number_type
        same = metadata.same_mobile_and_fixed_line_pattern
        if matches("fixed_line"):
            return PhoneNumberType.FIXED_LINE_OR_MOBILE if same or matches("mobile") else PhoneNumberType.FIXED_LINE
        return PhoneNumberType.MOBILE if not same and matches("mobile") else PhoneNumberType.UNKNOWN

    def build(self, automaton, states, length, length_max):
        key = (states, length)
        if key not in self.memo:
            children = [None] * 10
            if length < length_max:
                for digit in range(10):
                    targets = {end for state in states for mask, end in self.nfa.arcs[state] if mask >> digit & 1}
                    if targets:
                        children[digit] = self.build(automaton, self.nfa.closure(targets), length + 1, length_max)
            self.memo[key] = automaton.node(self.label(states, length), children)
        return self.memo[key]


# --- Automata: nodes shared wherever they are equal -----------------------------------------------------------------------------------


class Automaton:
    """A minimal acyclic automaton. A node is (output or None, ten children or None)."""

    def __init__(self):
        self.ids, self.nodes = {}, []

    def node(self, output, children):
        if output is None and all(child is None for child in children):
            return None
        key = (output, tuple(children))
        if key not in self.ids:
            self.ids[key] = len(self.nodes)
            self.nodes.append(key)
        return self.ids[key]

    def from_prefixes(self, entries):
        """Outputs count from their prefix on until a longer prefix says otherwise; what says the same again is left out."""
        trie = {}
        for prefix, output in entries.items():
            node = trie
            for digit in prefix:
                node = node.setdefault(digit, {})
            node["output"] = output
        return self.from_trie(trie, None)

    def from_trie(self, trie, inherited):
        output = trie.get("output", inherited)
        children = [self.from_trie(trie[digit], output) if digit in trie else None for digit in "0123456789"]
        return self.node(output if output != inherited else None, children)

    def write(self, root):
        """Children before parents. A node: 3 bytes (bits 0-9: digits that lead on; bits 10-19: digit with the same target as the one
        before it; bit 20: has an output), the output, then one number per distinct target: 2 * output + 1 for a target that is
        nothing but its output, else 2 * the distance back to the target. Numbers are LEB128."""
        data, offsets = bytearray(), {}

        def is_leaf(node):
            return all(child is None for child in self.nodes[node][1])

        def visit(node):
            if node in offsets:
                return
            output, children = self.nodes[node]
            for child in children:
                if child is not None and not is_leaf(child):
                    visit(child)
            offsets[node] = len(data)
            mask = same = 0
            targets, before = [], None
            for digit, child in enumerate(children):
                if child is None:
                    continue
                mask |= 1 << digit
                if child == before:
                    same |= 1 << digit
                else:
                    targets.append(child)
                before = child
            header = mask | same << 10 | (output is not None) << 20
            data.extend(header.to_bytes(3, "little"))
            if output is not None:
                data.extend(leb128(output))
            for target in targets:
                data.extend(leb128(2 * self.nodes[target][0] + 1 if is_leaf(target) else 2 * (offsets[node] - offsets[target])))

        visit(root)
        return bytes(data), offsets[root]


def leb128(number):
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


# --- Time zones ------------------------------------------------------------------------------------------------------------------------


class Zones:
    """Canonical names (those of zone.tab) and the country of each."""

    def __init__(self):
        folder = pathlib.Path(tzdata.__file__).parent / "zoneinfo"
        self.country, self.links = {}, {}
        for line in (folder / "zone.tab").read_text().splitlines():
            if line and not line.startswith("#"):
                country, _, name = line.split("\t")[:3]
                self.country[name] = country
        for line in (folder / "tzdata.zi").read_text().splitlines():
            if line.startswith("L "):
                _, target, alias = line.split()
                self.links[alias] = target
        self.of_country = collections.defaultdict(list)
        for name, country in self.country.items():
            self.of_country[country].append(name)

    def canonical(self, name):
        while name not in self.country:
            name = self.links[name]
        return name

    def resolve(self, names, country):
        """The one zone that is meant, or None."""
        names = sorted({self.canonical(name) for name in names})
        if len(names) == 1:
            return names[0]
        own = [name for name in names if self.country[name] == country]
        if len(own) == 1:
            return own[0]
        only = self.of_country.get(country, [])
        return only[0] if len(only) == 1 else None


# --- The table -------------------------------------------------------------------------------------------------------------------------


@functools.cache
def says_only_the_country(calling_code, name):
    names = {geocoder._region_display_name(region, "en") for region in COUNTRY_CODE_TO_REGION_CODE[calling_code]}
    names |= {name.replace("&", "and").replace("St.", "Saint") for name in names}
    return name.casefold() in {name.casefold() for name in names}


def names_by_prefix():
    """Prefix -> region name, None where the data set has no more to say than the country's name."""
    entries = {}
    for prefix, languages in GEOCODE_DATA.items():
        if "en" not in languages:
            continue
        calling_code, _ = split(prefix)
        name = region_name(calling_code, languages["en"])
        entries[prefix] = None if name is None or says_only_the_country(calling_code, name) else name
    return entries


def carriers_by_prefix():
    """Prefix -> name of the carrier that the numbers were first given to, where the data set has an English one."""
    return {prefix: languages["en"] for prefix, languages in CARRIER_DATA.items() if languages.get("en")}


def front_coded(names):
    """Blocks of names in order; in a block each says how many bytes it shares with the one before."""
    data, offsets, before = bytearray(), [], b""
    for index, name in enumerate(names):
        encoded = name.encode()
        shared = 0
        if index % NAMES_PER_BLOCK == 0:
            offsets.append(len(data))
        else:
            while shared < min(len(before), len(encoded), 255) and before[shared] == encoded[shared]:
                shared += 1
        data.append(shared)
        data.append(len(encoded) - shared)
        data.extend(encoded[shared:])
        before = encoded
    return bytes(data), offsets


def make_table(zones):
    codes = sorted(COUNTRY_CODE_TO_REGION_CODE)
    regions = sorted({region for code in codes for region in COUNTRY_CODE_TO_REGION_CODE[code]} - {"001"})
    region_index = {region: index for index, region in enumerate(regions)} | {"001": NONE}
    assert len(regions) < NONE

    labels, plans = {}, Automaton()
    by_digits = {}
    for code in codes:
        plan = Plan(code, labels)
        by_digits[str(code)] = plan.build(plans, plan.start, 0, DIGITS_MAX - len(str(code)))

    def under(prefix):
        if prefix in by_digits:
            return by_digits[prefix]
        if not any(digits.startswith(prefix) for digits in by_digits):
            return None
        return plans.node(None, [under(prefix + digit) for digit in "0123456789"])

    plan_data, plan_root = plans.write(under(""))

    names = names_by_prefix()
    name_list = sorted({name for name in names.values() if name is not None})
    name_index = {name: index + 1 for index, name in enumerate(name_list)} | {None: 0}
    automaton = Automaton()
    name_data, name_root = automaton.write(automaton.from_prefixes({prefix: name_index[name] for prefix, name in names.items()}))
    name_bytes, name_blocks = front_coded(name_list)

    carriers = carriers_by_prefix()
    carrier_list = sorted(set(carriers.values()))
    carrier_index = {name: index + 1 for index, name in enumerate(carrier_list)}
    automaton = Automaton()
    entries = {prefix: carrier_index[name] for prefix, name in carriers.items()}
    carrier_data, carrier_root = automaton.write(automaton.from_prefixes(entries))
    carrier_bytes, carrier_blocks = front_coded(carrier_list)

    zone_list = sorted(zones.country)
    zone_index = {name: index for index, name in enumerate(zone_list)}
    sets, entries = {}, {}
    for prefix, raw in TIMEZONE_DATA.items():
        members = tuple(sorted({zone_index[zones.canonical(name)] for name in raw}))
        entries[prefix] = sets.setdefault(members, len(sets))
    automaton = Automaton()
    zone_data, zone_root = automaton.write(automaton.from_prefixes(entries))
    set_bytes, set_offsets = bytearray(), []
    for members in sets:
        set_offsets.append(len(set_bytes))
        set_bytes += struct.pack("<B", len(members)) + b"".join(struct.pack("<H", member) for member in members)
    zone_bytes, zone_offsets = bytearray(), []
    for name in zone_list:
        zone_offsets.append(len(zone_bytes))
        zone_bytes += struct.pack("<BB", region_index.get(zones.country[name], NONE), len(name)) + name.encode()

    code_bytes = bytearray()
    for code in codes:
        of_code = COUNTRY_CODE_TO_REGION_CODE[code]
        country = region_index[of_code[0]] if len(of_code) == 1 else NONE
        trunk = (metadata_of(of_code[0], code).national_prefix or "").encode()
        trunk = trunk if trunk.isdigit() and len(trunk) <= 2 else b""
        token = (country_mobile_token(code) or "\0").encode()
        flags = FLAG_GEOGRAPHIC_MOBILE if code in _GEO_MOBILE_COUNTRIES else 0
        code_bytes += struct.pack("<HBBc3s", code, country, flags, token, trunk)
    only_zone = bytearray()
    for region in regions:
        of_country = zones.of_country.get(region, [])
        only_zone += struct.pack("<H", zone_index[of_country[0]] if len(of_country) == 1 else 0xFFFF)

    sections = [
        bytes(code_bytes),
        "".join(regions).encode(),
        bytes(only_zone),
        b"".join(struct.pack("<BB", region_index[region], TYPES.index(kind)) for region, kind in labels),
        plan_data,
        name_data,
        name_bytes,
        b"".join(struct.pack("<I", offset) for offset in name_blocks),
        zone_data,
        b"".join(struct.pack("<H", offset) for offset in set_offsets),
        bytes(set_bytes),
        b"".join(struct.pack("<H", offset) for offset in zone_offsets),
        bytes(zone_bytes),
        carrier_data,
        carrier_bytes,
        b"".join(struct.pack("<I", offset) for offset in carrier_blocks),
    ]
    roots = struct.pack("<IIII", plan_root, name_root, zone_root, carrier_root)
    header = FORMAT + roots + b"".join(struct.pack("<I", len(part)) for part in sections)
    sizes = dict(zip("codes regions only_zone labels plans names_tree names name_blocks zones_tree sets_at sets zones_at zones carriers_tree carriers carrier_blocks".split(), map(len, sections)))
    return header + b"".join(sections), sizes


# --- What the data set itself says, for the tests ---------------------------------------------------------------------------------------


def expectation(zones, digits):
    """One line: number, country, type, valid, region, time zone, carrier; None for what is no number to the package."""
    try:
        number = phonenumbers.parse("+" + digits)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) != "+" + digits:
        return None
    country = phonenumbers.region_code_for_number(number)
    country = None if country in ("001", None) else country
    kind = phonenumbers.number_type(number)
    region = zone = None
    if kind != PhoneNumberType.UNKNOWN:
        zone_names = timezone.time_zones_for_number(number)
        if zone_names != (timezone.UNKNOWN_TIMEZONE,):
            zone = zones.resolve(zone_names, country)
        if is_number_type_geographical(kind, number.country_code):
            region = region_name(number.country_code, geocoder.description_for_number(number, "en"))
            region = None if region is None or says_only_the_country(number.country_code, region) else region
    return "\t".join([
        "+" + digits, country or "-", PhoneNumberType.to_string(kind).lower(), str(phonenumbers.is_valid_number(number)).lower(),
        region or "-", zone or "-", carrier.name_for_number(number, "en") or "-",
    ])


def examples():
    """Every example number of every region and type in the metadata."""
    for code, of_code in COUNTRY_CODE_TO_REGION_CODE.items():
        for region in of_code:
            metadata = metadata_of(region, code)
            for kind in ["fixed_line", "mobile"] + [kind for kind, _ in KINDS]:
                description = getattr(metadata, kind)
                if description is not None and description.example_number:
                    yield str(code) + description.example_number


def make_expectations(zones, count_each, seed):
    chance = random.Random(seed)
    numbers = list(dict.fromkeys(examples()))
    known = list(numbers)
    for number in known:
        # Near misses and other parts of the same plan.
        for _ in range(count_each):
            code, national = split(number)
            national = list(national)
            for _ in range(chance.randint(1, 4)):
                national[chance.randrange(len(national))] = chance.choice("0123456789")
            if chance.random() < 0.2:
                national = national[: -1] if chance.random() < 0.5 else national + [chance.choice("0123456789")]
            numbers.append(str(code) + "".join(national))
    lengths = collections.defaultdict(set)
    for number in known:
        lengths[split(number)[0]].add(len(number))
    prefixes = sorted(GEOCODE_DATA)
    for prefix in chance.sample(prefixes, 1_000 * count_each) + sorted(TIMEZONE_DATA):
        length = chance.choice(sorted(lengths[split(prefix)[0]]))
        numbers.append(prefix + "".join(chance.choice("0123456789") for _ in range(length - len(prefix))))
    numbers = [number for number in dict.fromkeys(numbers) if 7 <= len(number) <= DIGITS_MAX]
    return [line for line in (expectation(zones, number) for number in numbers) if line is not None]


def main():
    sys.setrecursionlimit(10_000)
    zones = Zones()
    table, sizes = make_table(zones)
    (HERE / "numbering.bin").write_bytes(table)
    print(f"numbering.bin: {len(table)} bytes", sizes)
    # More lines for a one-off check of a new release: python generate.py 50 /tmp/expectations.tsv
    count_each = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    path = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "expectations.tsv"
    lines = make_expectations(zones, count_each, seed=164)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} numbers")


if __name__ == "__main__":
    main()
