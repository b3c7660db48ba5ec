//! Checks `[dpdk]`, and the ports that use it.

use super::{
    error::{ConfigError, Rule},
    field::{Unique, cores},
    file::{self, Scalar},
    model::{Config, DPDK_CORES, Port, PortKind},
    source::Source,
    value,
};
use toml::Spanned;
use wayfarer_dataplane::port::dpdk::Options;

/// The unit in which EAL counts memory, in bytes.
const MEBIBYTE: usize = 1 << 20;

/// Options of EAL that have a key in the configuration.
const KEYS: [(&str, &str); 9] = [
    ("-l", "cores"),
    ("-c", "cores"),
    ("--lcores", "cores"),
    ("-m", "memory"),
    ("--socket-mem", "memory"),
    ("--no-huge", "hugepages"),
    ("-a", "allow"),
    ("--allow", "allow"),
    ("--vdev", "vdev"),
];

/// Options of EAL that the gateway sets itself, or that end the program.
const REFUSED: [&str; 11] = [
    "-h",
    "--help",
    "-v",
    "--version",
    "--",
    "--no-pci",
    "--proc-type",
    "--in-memory",
    "--no-shconf",
    "--no-telemetry",
    "--telemetry",
];

/// Returns the options of DPDK, if it has a port. Checks that its ports have a device there.
pub(super) fn options(
    source: &Source<'_>,
    file: &file::File,
    config: &Config,
) -> Result<Option<Options>, ConfigError> {
    let is_used = config.ports.iter().any(|port| matches!(port.kind, PortKind::Dpdk { .. }));
    let place = file.dpdk.as_ref().map(Spanned::span);
    match place {
        None if !is_used => return Ok(None),
        Some(_) if !is_used => return Err(source.error("dpdk", place, Rule::NoDpdkPort)),
        _ => {}
    }
    source.optional("gateway.workers", &file.gateway.workers, |list| cores(list, DPDK_CORES))?;
    let options = match &file.dpdk {
        Some(table) => read(source, table.get_ref(), config.gateway.workers.as_deref())?,
        None => read(source, &file::Dpdk::default(), config.gateway.workers.as_deref())?,
    };
    let vdev = file.dpdk.as_ref().and_then(|table| table.get_ref().vdev.as_ref()).map(Spanned::span);
    for (raw, port) in file.port.iter().zip(&config.ports) {
        let raw = raw.get_ref();
        check_port(source, raw, port, &options)?;
        source.optional("port.exception", &raw.exception, |device| match &vdev {
            Some(place) if has_interface(&options.vdev, device) => Err(Rule::Duplicate(source.line(place))),
            _ => Ok(()),
        })?;
    }
    Ok(Some(options))
}

fn read(source: &Source<'_>, raw: &file::Dpdk, workers: Option<&[usize]>) -> Result<Options, ConfigError> {
    let cores =
        source.optional("dpdk.cores", &raw.cores, |list| match (cores(list, DPDK_CORES)?, workers) {
            (cores, Some(workers)) if cores != workers => Err(Rule::OtherCores),
            (cores, _) => Ok(cores),
        })?;
    let mut names = Unique::new();
    let mut devices = |list: &Spanned<Vec<String>>, device: fn(&str) -> Result<String, Rule>| {
        let devices = list.get_ref().iter().map(|text| device(text)).collect::<Result<Vec<_>, _>>()?;
        for device in &devices {
            names.add(source, name_of(device).to_owned(), list.span())?;
        }
        Ok(devices)
    };
    let mut list = |key, list: &file::Key<Vec<String>>, device| {
        let checked = list.as_ref().map(|list| source.value(key, list, |_| devices(list, device)));
        checked.transpose().map(Option::unwrap_or_default)
    };
    Ok(Options {
        cores: cores.or(workers.map(<[_]>::to_vec)).unwrap_or_default(),
        memory: source.optional("dpdk.memory", &raw.memory, memory)?,
        hugepages: raw.hugepages.unwrap_or(true),
        allow: list("dpdk.allow", &raw.allow, pci)?,
        vdev: list("dpdk.vdev", &raw.vdev, vdev)?,
        options: source.optional("dpdk.options", &raw.options, |list| words(list))?.unwrap_or_default(),
    })
}

fn check_port(
    source: &Source<'_>,
    raw: &file::Port,
    port: &Port,
    options: &Options,
) -> Result<(), ConfigError> {
    match &port.kind {
        PortKind::AfXdp { .. } => {
            source.optional("port.kind", &raw.kind, |_| Err::<(), _>(Rule::BesideDpdk))?;
        }
        PortKind::Dpdk { device, .. } => {
            let names: Vec<&str> = options.allow.iter().chain(&options.vdev).map(|d| name_of(d)).collect();
            let is_there = |_: &String| match names.contains(&&device[..]) {
                true => Ok(()),
                false => Err(Rule::UnknownDpdkDevice(names.join(", ").into())),
            };
            source.optional("port.device", &raw.device, is_there)?;
        }
        _ => {}
    }
    Ok(())
}

/// Returns whether one of these virtual devices creates the kernel device of this name.
fn has_interface(vdev: &[String], device: &str) -> bool {
    let arguments = vdev.iter().flat_map(|vdev| vdev.split(',').skip(1));
    arguments.filter_map(|argument| argument.strip_prefix("iface=")).any(|name| name == device)
}

/// Returns the name of a device, without its arguments.
fn name_of(device: &str) -> &str {
    device.split_once(',').map_or(device, |(name, _)| name)
}

/// Returns a device's name as DPDK spells it: a PCI address has its domain, and is in lower case.
pub(super) fn name(text: &str) -> String {
    pci(text).ok().filter(|name| !name.contains(',')).unwrap_or_else(|| text.to_owned())
}

/// Parses a PCI address like `0000:03:00.0` or `03:00.0`, with optional arguments. Returns it with
/// its domain, in lower case.
fn pci(text: &str) -> Result<String, Rule> {
    let (address, arguments) = text.split_at(name_of(text).len());
    let parts: Vec<&str> = address.split([':', '.']).collect();
    let (domain, rest) = match &parts[..] {
        [domain, rest @ ..] if rest.len() == 3 => (*domain, rest),
        rest => ("0000", rest),
    };
    let &[bus, device, function] = rest else { return Err(Rule::Pci) };
    let is_hex = |part: &str, digits, most| {
        part.len() == digits
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && u32::from_str_radix(part, 16).is_ok_and(|n| n <= most)
    };
    let fits = is_hex(domain, 4, 0xffff)
        && is_hex(bus, 2, 0xff)
        && is_hex(device, 2, 0x1f)
        && is_hex(function, 1, 7)
        && is_word(text);
    let address = format!("{domain}:{bus}:{device}.{function}").to_lowercase();
    // The separators are at the right places if inserting them gives the same address again.
    let is_same = address.ends_with(&text[..text.len() - arguments.len()].to_lowercase());
    if fits && is_same { Ok(address + arguments) } else { Err(Rule::Pci) }
}

/// Parses a virtual device like `net_tap0,iface=wf0`.
fn vdev(text: &str) -> Result<String, Rule> {
    if is_word(text) && !name_of(text).is_empty() { Ok(text.to_owned()) } else { Err(Rule::Vdev) }
}

/// Parses an amount of memory, which must be whole MiB, the unit of EAL.
fn memory(size: &Scalar) -> Result<usize, Rule> {
    let size = value::size_within(size, MEBIBYTE..=MEBIBYTE << 20)?;
    if size.is_multiple_of(MEBIBYTE) { Ok(size) } else { Err(Rule::Multiple(MEBIBYTE as u64)) }
}

/// Checks options of EAL, each with its value in the same word or in the next.
fn words(list: &[String]) -> Result<Vec<String>, Rule> {
    let mut takes_value = false;
    for word in list {
        let is_option = word.starts_with('-');
        if !is_word(word) || !is_option && !takes_value {
            return Err(Rule::EalOption(word.as_str().into()));
        }
        if let Some((option, key)) =
            KEYS.into_iter().find(|(option, _)| is_option && is_same_option(word, option))
        {
            return Err(Rule::OptionWithKey(option, key));
        }
        if let Some(option) =
            REFUSED.into_iter().find(|option| word == option || is_same_option(word, option))
        {
            return Err(Rule::RefusedOption(option));
        }
        takes_value = is_option && !word.contains('=');
    }
    Ok(list.to_vec())
}

/// Returns whether getopt_long(3) may read `word` as `option`: a short option may contain its
/// value, and a long option may be abbreviated.
fn is_same_option(word: &str, option: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    match option.starts_with("--") {
        true => name.len() > 2 && option.starts_with(name),
        false => word.starts_with(option),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}
