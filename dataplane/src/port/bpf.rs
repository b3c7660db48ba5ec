//! bpf(2) without a compiler or a library: an assembler for short programs, maps, and links that
//! detach when their last descriptor closes.

#![allow(unsafe_code, reason = "the system call has no safe wrapper")]

use super::sys;
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

// linux/bpf.h: commands.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
// linux/bpf.h: attach types.
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
// linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;

/// Kinds of maps.
#[derive(Clone, Copy)]
pub(crate) enum MapKind {
    Hash = 1,
    /// A hash that forgets the entries that were not used for longest.
    LruHash = 9,
    Xsk = 17,
}

/// Kinds of programs.
#[derive(Clone, Copy)]
pub(crate) enum ProgramKind {
    SocketFilter = 1,
    Tcx = 3,
    Xdp = 6,
}

/// The place at which a program is attached to a device.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// In the driver, before the kernel has processed the frame.
    XdpNative,
    /// In the kernel's receive path, for drivers without XDP.
    XdpGeneric,
    /// After packet sockets, before the network stack (Linux 6.6).
    TcxIngress,
}

/// The used part of the kernel's `union bpf_attr`.
struct Attributes([u64; 16]);

impl Attributes {
    fn new() -> Self {
        Self([0; 16])
    }

    /// Sets the 32-bit field at `offset` bytes.
    fn word(mut self, offset: usize, value: u32) -> Self {
        let shift = if cfg!(target_endian = "little") { offset % 8 * 8 } else { 32 - offset % 8 * 8 };
        self.0[offset / 8] |= u64::from(value) << shift;
        self
    }

    /// Sets the 64-bit field at `offset` bytes, a pointer.
    fn pointer<T>(mut self, offset: usize, value: *const T) -> Self {
        self.0[offset / 8] = value as u64;
        self
    }

    /// Calls bpf(2).
    ///
    /// # Safety
    /// Every pointer in the attributes is valid for the use that `command` makes of it.
    unsafe fn call(mut self, command: i32) -> io::Result<i32> {
        let len = size_of_val(&self.0) as u32;
        // SAFETY: `len` bytes of attributes, all zero beyond the known fields; pointers by this
        // function's contract.
        sys::check(unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), len) } as i32)
    }

    /// Calls bpf(2) with a command that returns a descriptor.
    ///
    /// # Safety
    /// As for `call`, and `command` returns a new descriptor.
    unsafe fn open(self, command: i32) -> io::Result<OwnedFd> {
        // SAFETY: by this function's contract.
        unsafe { Ok(OwnedFd::from_raw_fd(self.call(command)?)) }
    }
}

/// A map from keys of `K` bytes to values of 4 bytes.
#[derive(Debug)]
pub(crate) struct Map<const K: usize>(OwnedFd);

impl<const K: usize> Map<K> {
    pub(crate) fn new(kind: MapKind, entries: u32) -> io::Result<Self> {
        let attributes =
            Attributes::new().word(0, kind as u32).word(4, K as u32).word(8, 4).word(12, entries);
        // SAFETY: no pointers; returns a descriptor.
        unsafe { attributes.open(MAP_CREATE) }.map(Self)
    }

    pub(crate) fn insert(&self, key: [u8; K], value: u32) -> io::Result<()> {
        let fd = self.0.as_raw_fd() as u32;
        let attributes = Attributes::new().word(0, fd).pointer(8, key.as_ptr()).pointer(16, &raw const value);
        // SAFETY: the kernel reads K bytes of the key and 4 of the value, which are live.
        unsafe { attributes.call(MAP_UPDATE) }.map(drop)
    }

    /// Removes a key. Succeeds also if there is no such key.
    pub(crate) fn remove(&self, key: [u8; K]) -> io::Result<()> {
        let attributes = Attributes::new().word(0, self.0.as_raw_fd() as u32).pointer(8, key.as_ptr());
        // SAFETY: the kernel reads K bytes of the key, which is live.
        match unsafe { attributes.call(MAP_DELETE) } {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
            _ => Ok(()),
        }
    }
}

/// A register: 0 holds the result; 1 to 5 are arguments, and lost in a call; 6 to 9 are kept; 10 is
/// the end of the stack.
pub(crate) type Register = u8;

/// A position in a program that jumps lead to.
#[derive(Clone, Copy)]
pub(crate) struct Label(usize);

/// The width of a load or store.
#[derive(Clone, Copy)]
pub(crate) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// The condition of a jump, on the low 32 bits.
#[derive(Clone, Copy)]
pub(crate) enum If {
    Equal = 0x10,
    AtLeast = 0x30,
    NotEqual = 0x50,
}

/// Arithmetic on 64 bits with a constant.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    Add = 0x00,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
}

/// One instruction (RFC 9669 §3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// An assembler: instructions in order, and jumps to labels that are placed later.
#[derive(Default)]
pub(crate) struct Program {
    code: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Program {
    fn push(&mut self, opcode: u8, dst: Register, src: Register, offset: i16, immediate: i32) {
        self.code.push(Instruction { opcode, registers: dst | src << 4, offset, immediate });
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places the label at the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// Appends `dst = *(src + offset)`.
    pub(crate) fn load(&mut self, width: Width, dst: Register, src: Register, offset: i16) {
        self.push(0x61 | width as u8, dst, src, offset, 0);
    }

    /// Appends `*(dst + offset) = src`.
    pub(crate) fn store(&mut self, width: Width, dst: Register, offset: i16, src: Register) {
        self.push(0x63 | width as u8, dst, src, offset, 0);
    }

    /// Appends `*(dst + offset) = immediate`.
    pub(crate) fn store_constant(&mut self, width: Width, dst: Register, offset: i16, immediate: i32) {
        self.push(0x62 | width as u8, dst, 0, offset, immediate);
    }

    /// Appends `dst = immediate`.
    pub(crate) fn set(&mut self, dst: Register, immediate: i32) {
        self.push(0xb7, dst, 0, 0, immediate);
    }

    /// Appends `dst = src`.
    pub(crate) fn copy(&mut self, dst: Register, src: Register) {
        self.push(0xbf, dst, src, 0, 0);
    }

    /// Appends `dst = dst op immediate`.
    pub(crate) fn apply(&mut self, op: Op, dst: Register, immediate: i32) {
        self.push(0x07 | op as u8, dst, 0, 0, immediate);
    }

    /// Appends `dst = u16::from_be(dst)`.
    pub(crate) fn half_from_network(&mut self, dst: Register) {
        self.push(0xdc, dst, 0, 0, 16);
    }

    /// Appends `dst = dst + src`.
    pub(crate) fn add(&mut self, dst: Register, src: Register) {
        self.push(0x0f, dst, src, 0, 0);
    }

    /// Appends `dst = map`.
    pub(crate) fn set_map<const K: usize>(&mut self, dst: Register, map: &Map<K>) {
        const PSEUDO_MAP_FD: Register = 1;
        self.push(0x18, dst, PSEUDO_MAP_FD, 0, map.0.as_raw_fd());
        self.push(0, 0, 0, 0, 0);
    }

    /// Appends `if (dst as u32) condition immediate { goto label }`.
    pub(crate) fn jump_if(&mut self, condition: If, dst: Register, immediate: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x06 | condition as u8, dst, 0, 0, immediate);
    }

    /// Appends `if dst == 0 { goto label }` on 64 bits, as pointers need.
    pub(crate) fn jump_if_null(&mut self, dst: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x15, dst, 0, 0, 0);
    }

    /// Appends `goto label`.
    pub(crate) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x05, 0, 0, 0, 0);
    }

    /// Appends `r0 = helper(r1, r2, r3, r4, r5)`.
    pub(crate) fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// Appends `return r0`.
    pub(crate) fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// Loads the program into the kernel, whose verifier checks it.
    ///
    /// # Panics
    /// Panics if a label was never placed, which is a bug in this program.
    pub(crate) fn load_into_kernel(mut self, kind: ProgramKind) -> io::Result<OwnedFd> {
        for (from, label) in &self.jumps {
            let to = self.labels[label.0].expect("every label is placed");
            self.code[*from].offset = (to as i64 - *from as i64 - 1) as i16;
        }
        let licence = c"Dual MIT/GPL";
        let attributes = Attributes::new()
            .word(0, kind as u32)
            .word(4, self.code.len() as u32)
            .pointer(8, self.code.as_ptr())
            .pointer(16, licence.as_ptr())
            .word(68, if matches!(kind, ProgramKind::Xdp) { ATTACH_XDP } else { 0 });
        // SAFETY: the kernel reads the given number of instructions, and the licence up to its NUL.
        unsafe { attributes.open(PROG_LOAD) }
    }
}

/// Attaches a program to a device. The kernel detaches it when the returned descriptor closes, so
/// that a process that dies leaves nothing behind.
pub(crate) fn attach(program: &OwnedFd, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let (kind, flags) = match hook {
        Hook::XdpNative => (ATTACH_XDP, XDP_FLAGS_DRV_MODE),
        Hook::XdpGeneric => (ATTACH_XDP, XDP_FLAGS_SKB_MODE),
        Hook::TcxIngress => (ATTACH_TCX_INGRESS, 0),
    };
    let program = program.as_raw_fd() as u32;
    let attributes = Attributes::new().word(0, program).word(4, ifindex).word(8, kind).word(12, flags);
    // SAFETY: no pointers; returns a descriptor.
    unsafe { attributes.open(LINK_CREATE) }
}

/// Filters the packets that a socket receives with an eBPF program.
pub(crate) fn filter(socket: &OwnedFd, program: RawFd) -> io::Result<()> {
    sys::set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program)
}
