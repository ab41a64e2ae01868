//! The bytes of `data/numbering.bin`, as `data/generate.py` writes them and `data/README.md` describes them: automata over digits, names,
//! zones. Knows nothing of what a telephone number is. Nothing is copied or allocated but the one name that is asked for.

/// The table that is built in. Reading its header happens at compile time: a file of another format does not compile.
pub static TABLE: Table = Table::open(include_bytes!("../data/numbering.bin"));

const FORMAT: &[u8; 8] = b"ECHONUM2";
const ROOTS: usize = 4;
const SECTIONS: usize = 16;
/// Where the sections' lengths begin.
const LENGTHS_AT: usize = FORMAT.len() + 4 * ROOTS;
const NAMES_PER_BLOCK: usize = 16;
/// Stands for "no country" and, in 16 bits, for "no zone".
const NONE: u8 = 0xff;
const NONE_16: u16 = 0xffff;

pub struct Table {
    codes: &'static [u8],
    countries: &'static [u8],
    only_zones: &'static [u8],
    labels: &'static [u8],
    /// Whole number → label.
    pub plans: Automaton,
    /// Prefix → name; 0 where there is none to give.
    pub places: Automaton,
    names: Names,
    /// Prefix → set of zones.
    pub zone_sets: Automaton,
    sets_at: &'static [u8],
    sets: &'static [u8],
    zones_at: &'static [u8],
    zones: &'static [u8],
    /// Prefix → carrier; 0 where there is none to give.
    pub carriers: Automaton,
    carrier_names: Names,
}

/// Names in blocks, front-coded; numbered from 1.
struct Names {
    bytes: &'static [u8],
    blocks: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Country(u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone(u16);

/// What the table knows of one calling code.
pub struct CallingCode {
    pub code: u16,
    /// The country, where the code has only one.
    pub country: Option<Country>,
    /// Whether mobile numbers say a place as well.
    pub geographic_mobile: bool,
    /// A digit that mobile numbers have before the area code.
    pub mobile_token: Option<u8>,
    /// What people dial before a national number, and must not after the calling code.
    pub trunk_prefix: &'static [u8],
}

impl CallingCode {
    /// How many digits it has.
    pub fn length(&self) -> usize {
        self.code.ilog10() as usize + 1
    }
}

impl Table {
    const fn open(bytes: &'static [u8]) -> Self {
        let mut at = 0;
        while at < FORMAT.len() {
            assert!(bytes[at] == FORMAT[at], "data/numbering.bin is of another format");
            at += 1;
        }
        let roots = [u32_at(bytes, 8), u32_at(bytes, 12), u32_at(bytes, 16), u32_at(bytes, 20)];
        let mut sections: [&[u8]; SECTIONS] = [&[]; SECTIONS];
        let mut rest = bytes.split_at(LENGTHS_AT + 4 * SECTIONS).1;
        let mut index = 0;
        while index < SECTIONS {
            let (section, after) = rest.split_at(u32_at(bytes, LENGTHS_AT + 4 * index));
            sections[index] = section;
            rest = after;
            index += 1;
        }
        assert!(rest.is_empty(), "data/numbering.bin has bytes left over");
        Self {
            codes: sections[0],
            countries: sections[1],
            only_zones: sections[2],
            labels: sections[3],
            plans: Automaton { nodes: sections[4], root: roots[0] },
            places: Automaton { nodes: sections[5], root: roots[1] },
            names: Names { bytes: sections[6], blocks: sections[7] },
            zone_sets: Automaton { nodes: sections[8], root: roots[2] },
            sets_at: sections[9],
            sets: sections[10],
            zones_at: sections[11],
            zones: sections[12],
            carriers: Automaton { nodes: sections[13], root: roots[3] },
            carrier_names: Names { bytes: sections[14], blocks: sections[15] },
        }
    }

    /// Calling codes are free of prefixes of each other: at most one fits.
    pub fn calling_code(&self, digits: &[u8]) -> Option<CallingCode> {
        let mut code = 0;
        for digit in digits.iter().take(3) {
            code = code * 10 + u16::from(digit - b'0');
            if code == 0 {
                return None;
            }
            let (records, _) = self.codes.as_chunks::<8>();
            let Ok(index) = records.binary_search_by_key(&code, |record| u16::from_le_bytes([record[0], record[1]])) else { continue };
            let record = &records[index];
            let trunk = &record[5..8];
            return Some(CallingCode {
                code,
                country: country(record[2]),
                geographic_mobile: record[3] & 1 == 1,
                mobile_token: (record[4] != 0).then_some(record[4]),
                trunk_prefix: &trunk[..trunk.iter().position(|byte| *byte == 0).unwrap_or(trunk.len())],
            });
        }
        None
    }

    /// The country and the number's kind, as the index of `number-type`.
    pub fn label(&self, label: u32) -> (Option<Country>, u8) {
        let at = 2 * label as usize;
        (country(self.labels[at]), self.labels[at + 1])
    }

    /// ISO 3166-1 alpha-2.
    pub fn country_letters(&self, country: Country) -> &'static str {
        let at = 2 * usize::from(country.0);
        std::str::from_utf8(&self.countries[at..at + 2]).expect("the generator writes letters")
    }

    /// The place's name with this number; 0 is none.
    pub fn name(&self, number: u32) -> Option<String> {
        self.names.name(number)
    }

    /// The carrier's name with this number; 0 is none.
    pub fn carrier(&self, number: u32) -> Option<String> {
        self.carrier_names.name(number)
    }

    /// Zones of a set, in order of their names.
    pub fn zones_of(&self, set: u32) -> impl ExactSizeIterator<Item = Zone> + Clone + use<> {
        let at = usize::from(u16_at(self.sets_at, 2 * set as usize));
        let count = usize::from(self.sets[at]);
        let (members, _) = self.sets[at + 1..at + 1 + 2 * count].as_chunks::<2>();
        members.iter().map(|member| Zone(u16::from_le_bytes(*member)))
    }

    /// The zone of a country that has a single one.
    pub fn only_zone_of(&self, country: Country) -> Option<Zone> {
        let zone = u16_at(self.only_zones, 2 * usize::from(country.0));
        (zone != NONE_16).then_some(Zone(zone))
    }

    pub fn zone_country(&self, zone: Zone) -> Option<Country> {
        country(self.zones[self.zone_at(zone)])
    }

    /// The IANA name.
    pub fn zone_name(&self, zone: Zone) -> &'static str {
        let at = self.zone_at(zone);
        let length = usize::from(self.zones[at + 1]);
        std::str::from_utf8(&self.zones[at + 2..at + 2 + length]).expect("the generator writes ASCII")
    }

    fn zone_at(&self, zone: Zone) -> usize {
        u16_at(self.zones_at, 2 * usize::from(zone.0)).into()
    }
}

impl Names {
    fn name(&self, number: u32) -> Option<String> {
        let index = number.checked_sub(1)? as usize;
        let mut at = u32_at(self.blocks, 4 * (index / NAMES_PER_BLOCK));
        let mut name = Vec::with_capacity(32);
        for _ in 0..=index % NAMES_PER_BLOCK {
            let (shared, length) = (self.bytes[at], self.bytes[at + 1]);
            name.truncate(shared.into());
            name.extend_from_slice(&self.bytes[at + 2..at + 2 + usize::from(length)]);
            at += 2 + usize::from(length);
        }
        Some(String::from_utf8(name).expect("the generator writes UTF-8"))
    }
}

/// A minimal acyclic automaton over decimal digits.
pub struct Automaton {
    nodes: &'static [u8],
    root: usize,
}

/// What a walk found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The output of the longest prefix that has one.
    pub prefix: Option<u32>,
    /// The output of exactly these digits.
    pub whole: Option<u32>,
}

impl Automaton {
    pub fn walk(&self, digits: impl Iterator<Item = u8>) -> Found {
        let mut found = Found::default();
        let mut node = Some(self.node(self.root));
        for digit in digits {
            found.whole = None;
            let Some(here) = node else { return found };
            node = match self.step(&here, digit - b'0') {
                Step::Nowhere => return found,
                Step::Leaf(output) => {
                    found = Found { prefix: Some(output), whole: Some(output) };
                    None
                }
                Step::Node(at) => {
                    let next = self.node(at);
                    if next.output.is_some() {
                        found = Found { prefix: next.output, whole: next.output };
                    }
                    Some(next)
                }
            };
        }
        found
    }

    fn node(&self, at: usize) -> Node {
        let header = &self.nodes[at..at + 3];
        let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let (output, targets_at) = if header >> 20 & 1 == 1 {
            let (output, after) = self.number(at + 3);
            (Some(output), after)
        } else {
            (None, at + 3)
        };
        Node { at, leads_on: header & 0x3ff, same_as_before: header >> 10 & 0x3ff, output, targets_at }
    }

    fn step(&self, node: &Node, digit: u8) -> Step {
        if node.leads_on >> digit & 1 == 0 {
            return Step::Nowhere;
        }
        // Targets are written once for a run of digits: count the runs that begin up to this digit.
        let runs = (node.leads_on & !node.same_as_before & ((2 << digit) - 1)).count_ones();
        let mut at = node.targets_at;
        for _ in 1..runs {
            at = self.number(at).1;
        }
        let (target, _) = self.number(at);
        if target & 1 == 1 { Step::Leaf(target >> 1) } else { Step::Node(node.at - (target >> 1) as usize) }
    }

    /// LEB128: the number and where it ends.
    fn number(&self, mut at: usize) -> (u32, usize) {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.nodes[at];
            number |= u32::from(byte & 0x7f) << shift;
            (at, shift) = (at + 1, shift + 7);
            if byte & 0x80 == 0 {
                return (number, at);
            }
        }
    }
}

/// A node's head.
struct Node {
    at: usize,
    /// A bit for each digit that leads on, and for each that leads where the one before it leads.
    leads_on: u32,
    same_as_before: u32,
    output: Option<u32>,
    targets_at: usize,
}

enum Step {
    Nowhere,
    /// There, and nothing leads on.
    Leaf(u32),
    Node(usize),
}

fn country(index: u8) -> Option<Country> {
    (index != NONE).then_some(Country(index))
}

const fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1` → 5, `12` and `13` → a node with output 6 and `4` → 7 below; written as the generator writes.
    const NODES: &[u8] = &[
        // 0: the node that 12 and 13 share: output 6, digit 4 to a leaf 7
        0x10, 0x00, 0x10, 6, 15, //
        // 5: the node of 1: output 5, digits 2 and 3, 3 the same as 2
        0x0c, 0x20, 0x10, 5, 10, //
        // 10: the root: digit 1
        0x02, 0x00, 0x00, 10,
    ];

    #[test]
    fn a_walk_finds_the_longest_prefix_and_the_whole() {
        let automaton = Automaton { nodes: NODES, root: 10 };
        for (digits, prefix, whole) in [
            ("1", Some(5), Some(5)),
            ("12", Some(6), Some(6)),
            ("13", Some(6), Some(6)),
            ("134", Some(7), Some(7)),
            ("1349", Some(7), None),
            ("19", Some(5), None),
            ("135", Some(6), None),
            ("2", None, None),
            ("", None, None),
        ] {
            assert_eq!(automaton.walk(digits.bytes()), Found { prefix, whole }, "{digits}");
        }
    }
}
