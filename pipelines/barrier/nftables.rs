//! The part of nftables' netlink protocol that the barrier needs, so that no program or library has
//! to be installed.
//!
//! Numbers are those of the kernel's `linux/netfilter/nf_tables.h`. All are big-endian, except
//! values that are compared with a packet.

// linux/netlink.h
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// Where the flags are in a message's header.
const FLAGS_AT: usize = 6;
// linux/netfilter/nfnetlink.h
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const INET: u8 = 1;
// nf_tables.h: messages.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const DELETE_RULES: u16 = 8;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
// The first attribute of every message is the table's name.
const TABLE: u16 = 1;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// The one register that most expressions use.
const REGISTER: u32 = 1;
/// The same register as the first word of a key.
const KEY: u32 = 8;
/// Elements in one message, because an attribute has less than 64 KiB.
const ELEMENTS: usize = 512;

/// The families of packets, as [`Expression::Family`] loads them.
pub(super) const INET4: [u8; 1] = [2];
pub(super) const INET6: [u8; 1] = [10];

/// Only the owner may change the table, `nft flush ruleset` of others leaves it, and it outlives
/// its owner (Linux 6.9).
pub(super) const OWNED: u32 = 2 | 4;
/// Anybody may change the table.
pub(super) const SHARED: u32 = 0;

/// The point at which a base chain sees packets (linux/netfilter.h).
#[derive(Clone, Copy)]
pub(super) enum Hook {
    /// All packets that come in.
    PreRouting = 0,
    /// Packets for other hosts.
    Forward = 2,
    /// Packets that leave, the host's own too.
    PostRouting = 4,
}

/// A part of a packet.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// Of the IP header: offset and length in bytes.
    Header(u32, u32),
    /// Of the header behind it, which a later fragment does not have.
    Transport(u32, u32),
    /// The protocol of the header behind it.
    Protocol,
    /// Of IPv6's fragment header, which other packets do not have.
    FragmentHeader(u32, u32),
}

/// A part of a rule: it loads a value into the register, or ends the rule if a comparison fails.
#[derive(Clone, Copy)]
pub(super) enum Expression<'a> {
    /// Loads the name of the device that the packet came in by.
    InputDevice,
    /// Loads the name of the device that the packet leaves by.
    OutputDevice,
    /// Loads the packet's address family, as a number of linux/netfilter.h.
    Family,
    /// Loads part of the IP header: offset and length in bytes.
    Header(u32, u32),
    /// Loads part of the packet to this word of a key.
    Key(u32, Part),
    /// Clears the bits of the key, from this word on, that the mask does not have.
    KeyMask(u32, &'a [u8]),
    /// Ends the rule unless the key is in this set.
    KeyIsIn(&'a str),
    /// Loads 1 if the packet is IPv4 with this option, 0 if it is IPv4 without. Ends the rule if it
    /// is not IPv4.
    HasOption(u8),
    /// Loads the type of the destination by the kernel's routes, as a number of linux/rtnetlink.h.
    DestinationType,
    /// Ends the rule unless this value was loaded.
    Is(&'a [u8]),
    /// Ends the rule if this value was loaded.
    IsNot(&'a [u8]),
    /// Ends the rule unless the loaded value is in this set.
    IsIn(&'a str),
    /// Counts the packet.
    Count,
    /// Drops the packet.
    Drop,
    /// Lets the packet leave this chain.
    Accept,
    /// Goes on with the rules of this chain, then with those behind this one.
    Jump(&'a str),
    /// Ends the chain that a rule jumped to.
    Return,
}

impl Expression<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::InputDevice | Self::OutputDevice | Self::Family | Self::Key(_, Part::Protocol) => "meta",
            Self::HasOption(_) | Self::Key(_, Part::FragmentHeader(..)) => "exthdr",
            Self::Header(..) | Self::Key(..) => "payload",
            Self::KeyMask(..) => "bitwise",
            Self::DestinationType => "fib",
            Self::Is(_) | Self::IsNot(_) => "cmp",
            Self::IsIn(_) | Self::KeyIsIn(_) => "lookup",
            Self::Count => "counter",
            Self::Drop | Self::Accept | Self::Jump(_) | Self::Return => "immediate",
        }
    }
}

/// Returns a device's name as the kernel compares it: padded with zeros.
pub(super) fn device_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}

/// A sequence of netlink attributes.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn put(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.0.len();
        self.put(kind | NESTED, &[]);
        inside(&mut Attributes(self.0));
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn numbers(&mut self, all: &[(u16, u32)]) {
        all.iter().for_each(|(kind, value)| self.number(*kind, *value));
    }

    fn expression(&mut self, expression: Expression<'_>) {
        self.nest(LIST_ELEMENT, |a| {
            a.text(1, expression.name());
            a.nest(2, |a| a.operands(expression));
        });
    }

    fn operands(&mut self, expression: Expression<'_>) {
        match expression {
            Expression::InputDevice => self.numbers(&[(1, REGISTER), (2, 6)]),
            Expression::OutputDevice => self.numbers(&[(1, REGISTER), (2, 7)]),
            Expression::Family => self.numbers(&[(1, REGISTER), (2, 15)]),
            Expression::Header(offset, length) => {
                self.numbers(&[(1, REGISTER), (2, 1), (3, offset), (4, length)]);
            }
            Expression::Key(word, part) => {
                let to = (1, KEY + word);
                match part {
                    Part::Header(offset, length) => self.numbers(&[to, (2, 1), (3, offset), (4, length)]),
                    Part::Transport(offset, length) => self.numbers(&[to, (2, 2), (3, offset), (4, length)]),
                    Part::Protocol => self.numbers(&[to, (2, 16)]),
                    Part::FragmentHeader(offset, length) => {
                        self.put(2, &[nix::libc::IPPROTO_FRAGMENT as u8]);
                        self.numbers(&[to, (3, offset), (4, length)]);
                    }
                }
            }
            Expression::KeyMask(word, mask) => {
                self.numbers(&[(1, KEY + word), (2, KEY + word), (3, mask.len() as u32)]);
                self.nest(4, |a| a.put(DATA_VALUE, mask));
                self.nest(5, |a| a.put(DATA_VALUE, &vec![0; mask.len()]));
            }
            Expression::HasOption(option) => {
                self.put(2, &[option]);
                // NFT_EXTHDR_F_PRESENT: load whether the option exists; the operation is
                // NFT_EXTHDR_OP_IPV4.
                self.numbers(&[(1, REGISTER), (3, 0), (4, 1), (5, 1), (6, 2)]);
            }
            // The result is the address type (NFT_FIB_RESULT_ADDRTYPE) of the destination
            // (NFTA_FIB_F_DADDR).
            Expression::DestinationType => self.numbers(&[(1, REGISTER), (2, 3), (3, 2)]),
            Expression::Is(value) => self.comparison(0, value),
            Expression::IsNot(value) => self.comparison(1, value),
            Expression::IsIn(set) => {
                self.text(1, set);
                self.number(2, REGISTER);
            }
            Expression::KeyIsIn(set) => {
                self.text(1, set);
                self.number(2, KEY);
            }
            Expression::Count => {}
            Expression::Drop => self.verdict(0, None),
            Expression::Accept => self.verdict(1, None),
            // NFT_RETURN is -5, NFT_JUMP -3.
            Expression::Return => self.verdict(5u32.wrapping_neg(), None),
            Expression::Jump(chain) => self.verdict(3u32.wrapping_neg(), Some(chain)),
        }
    }

    fn comparison(&mut self, operation: u32, value: &[u8]) {
        self.numbers(&[(1, REGISTER), (2, operation)]);
        self.nest(3, |a| a.put(DATA_VALUE, value));
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.number(1, 0);
        self.nest(2, |a| {
            a.nest(DATA_VERDICT, |a| {
                a.number(1, code);
                chain.into_iter().for_each(|chain| a.text(2, chain));
            });
        });
    }
}

/// Changes that the kernel applies all together or not at all.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    messages: u32,
    /// Where the last message begins in `bytes`.
    last_at: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut this = Self { bytes: Vec::new(), messages: 0, last_at: 0 };
        this.frame(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
        this
    }

    /// Ends the batch. Returns the number of its last change, the only one that the kernel acknowledges,
    /// and after all errors: the receive buffer has no room for thousands of acknowledgements.
    pub(super) fn end(&mut self) -> u32 {
        let last = self.messages - 1;
        let flags = &mut self.bytes[self.last_at + FLAGS_AT..][..2];
        flags.copy_from_slice(&(u16::from_ne_bytes([flags[0], flags[1]]) | ACK).to_ne_bytes());
        self.frame(BATCH_END, 0, 0, SUBSYSTEM, |_| {});
        last
    }

    /// Returns the request for a list of all tables of the family `inet`, in place of changes.
    pub(super) fn list_tables() -> Self {
        let mut this = Self { bytes: Vec::new(), messages: 0, last_at: 0 };
        this.frame(SUBSYSTEM << 8 | GET_TABLE, DUMP, INET, 0, |_| {});
        this
    }

    fn frame(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages += 1;
        self.last_at = at;
    }

    fn message(&mut self, kind: u16, flags: u16, table: &str, body: impl FnOnce(&mut Attributes<'_>)) {
        self.frame(SUBSYSTEM << 8 | kind, flags, INET, 0, |a| {
            a.text(TABLE, table);
            body(a);
        });
    }

    /// Creates a table unless it exists.
    pub(super) fn add_table(&mut self, table: &str, flags: u32) {
        self.message(NEW_TABLE, CREATE, table, |a| a.number(2, flags));
    }

    /// Deletes an existing table with all its contents.
    pub(super) fn delete_table(&mut self, table: &str) {
        self.message(DELETE_TABLE, 0, table, |_| {});
    }

    /// Adds a chain at `hook`. Chains of lower `priority` see packets earlier.
    pub(super) fn add_chain(&mut self, table: &str, chain: &str, hook: Hook, priority: i32) {
        self.message(NEW_CHAIN, CREATE, table, |a| {
            a.text(3, chain);
            a.nest(4, |a| {
                a.number(1, hook as u32);
                a.number(2, priority as u32);
            });
            a.text(7, "filter");
        });
    }

    /// Adds a chain to which rules jump.
    pub(super) fn add_inner_chain(&mut self, table: &str, chain: &str) {
        self.message(NEW_CHAIN, CREATE, table, |a| a.text(3, chain));
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn add_rule(&mut self, table: &str, chain: &str, expressions: &[Expression<'_>]) {
        self.message(NEW_RULE, CREATE | APPEND, table, |a| {
            a.text(2, chain);
            a.nest(4, |a| expressions.iter().for_each(|expression| a.expression(*expression)));
        });
    }

    /// Deletes all rules of a chain.
    pub(super) fn flush_chain(&mut self, table: &str, chain: &str) {
        self.message(DELETE_RULES, 0, table, |a| a.text(2, chain));
    }

    /// Deletes a set that no rule uses.
    pub(super) fn delete_set(&mut self, table: &str, set: &str) {
        self.message(DELETE_SET, 0, table, |a| a.text(2, set));
    }

    /// Adds a set of keys of this type of `nft` and length in bytes.
    pub(super) fn add_key_set(&mut self, table: &str, set: &str, (kind, length): (u32, u32)) {
        let number = self.messages;
        self.message(NEW_SET, CREATE, table, |a| {
            a.text(2, set);
            a.numbers(&[(3, 0), (4, kind), (5, length), (10, number)]);
        });
    }

    /// Adds keys to a set.
    pub(super) fn add_keys(&mut self, table: &str, set: &str, keys: &[Vec<u8>]) {
        keys.chunks(ELEMENTS).for_each(|some| self.keys(NEW_ELEMENTS, CREATE, table, set, some));
    }

    /// Removes a key from a set that has it.
    pub(super) fn remove_key(&mut self, table: &str, set: &str, key: Vec<u8>) {
        self.keys(DELETE_ELEMENTS, 0, table, set, &[key]);
    }

    fn keys(&mut self, kind: u16, flags: u16, table: &str, set: &str, keys: &[Vec<u8>]) {
        self.message(kind, flags, table, |a| {
            a.text(2, set);
            a.nest(3, |a| {
                for key in keys {
                    a.nest(LIST_ELEMENT, |a| a.nest(1, |a| a.put(DATA_VALUE, key)));
                }
            });
        });
    }

    /// Adds a set of IPv4 or IPv6 addresses. `ranges` include both ends and neither overlap nor
    /// touch.
    pub(super) fn add_set(&mut self, table: &str, set: &str, is_ipv4: bool, ranges: &[(u128, u128)]) {
        const INTERVALS: u32 = 4;
        // `nft`'s numbers of these types, for people who list the set.
        let (kind, length, last) = if is_ipv4 { (7, 4, u128::from(u32::MAX)) } else { (8, 16, u128::MAX) };
        // The kernel needs a number that is unique among the sets of the batch.
        let number = self.messages;
        self.message(NEW_SET, CREATE, table, |a| {
            a.text(2, set);
            a.numbers(&[(3, INTERVALS), (4, kind), (5, length), (10, number)]);
        });
        for some in ranges.chunks(ELEMENTS) {
            self.message(NEW_ELEMENTS, CREATE, table, |a| {
                a.text(2, set);
                a.nest(3, |a| {
                    for &(first, end) in some {
                        // A range up to the last address has no end element.
                        let end = (end != last).then(|| (end + 1, 1));
                        for (address, flags) in [Some((first, 0)), end].into_iter().flatten() {
                            a.nest(LIST_ELEMENT, |a| {
                                a.nest(1, |a| {
                                    a.put(DATA_VALUE, &address.to_be_bytes()[16 - length as usize..])
                                });
                                a.number(3, flags);
                            });
                        }
                    }
                });
            });
        }
    }
}
