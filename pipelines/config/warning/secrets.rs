//! Secrets that everybody knows, because this project's examples have them.

use super::review::Review;
use std::fs;
use toml::Spanned;

/// The secrets of the folder `conf/keys`.
const EXAMPLES: [&str; 13] = [
    include_str!("../../../conf/keys/example-alice-down"),
    include_str!("../../../conf/keys/example-alice-password"),
    include_str!("../../../conf/keys/example-alice-up"),
    include_str!("../../../conf/keys/example-carol-down"),
    include_str!("../../../conf/keys/example-carol-up"),
    include_str!("../../../conf/keys/example-home-agent"),
    include_str!("../../../conf/keys/example-host-down"),
    include_str!("../../../conf/keys/example-host-up"),
    include_str!("../../../conf/keys/example-lab-psk"),
    include_str!("../../../conf/keys/example-mobile-node"),
    include_str!("../../../conf/keys/example-ppk"),
    include_str!("../../../conf/keys/example-radius"),
    include_str!("../../../conf/keys/example-users"),
];

pub(super) fn review(review: &mut Review<'_>) {
    let (source, raw, config) = (review.source, review.raw, review.config);
    let keys: Vec<Vec<u8>> = EXAMPLES.iter().filter_map(|text| key_of(text)).collect();
    let mut public: Vec<(&'static str, &Spanned<String>)> = vec![];
    // There may be a million tunnels, so their files are not read again.
    for (raw, tunnel) in raw.tunnel.iter().zip(&config.tunnels) {
        let raw = raw.get_ref();
        let both = [
            ("tunnel.inbound.key_file", &raw.inbound.key_file, &tunnel.inbound.key),
            ("tunnel.outbound.key_file", &raw.outbound.key_file, &tunnel.outbound.key),
        ];
        let known = both.into_iter().filter(|(.., key)| keys.contains(key));
        public.extend(known.map(|(name, file, _)| (name, file)));
    }
    let mut files: Vec<(&'static str, &Spanned<String>)> = vec![];
    for connection in &raw.connection {
        let connection = connection.get_ref();
        let optional = [
            ("connection.psk_file", &connection.psk_file),
            ("connection.users_file", &connection.users_file),
            ("connection.password_file", &connection.password_file),
        ];
        files.extend(optional.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?))));
        files.extend(connection.ppk.iter().map(|ppk| ("connection.ppk.file", &ppk.file)));
        let radius = connection.radius.iter();
        files.extend(radius.map(|radius| ("connection.radius.secret_file", &radius.get_ref().secret_file)));
    }
    let terminals = raw.home_agent.iter().flat_map(|agent| &agent.get_ref().terminal);
    files.extend(terminals.map(|one| ("home_agent.terminal.secret_file", &one.get_ref().secret_file)));
    files.extend(raw.siu.iter().map(|siu| ("siu.secret_file", &siu.get_ref().secret_file)));
    let clients = raw.coa.iter().flat_map(|coa| coa.get_ref().clients.get_ref());
    files.extend(clients.map(|client| ("coa.clients.secret_file", &client.secret_file)));
    let path = |file: &Spanned<String>| source.path(file.get_ref()).ok();
    let text = |file: &Spanned<String>| fs::read_to_string(path(file)?).ok();
    public.extend(files.into_iter().filter(|(_, file)| text(file).is_some_and(|text| is_public(&text))));
    for (key, file) in public {
        review.warn(key, file.span(), "is an example that everybody knows: make a secret of your own");
    }
}

/// Returns the key that hexadecimal digits stand for.
fn key_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16));
    let digits: Vec<u32> = digits.collect::<Option<_>>()?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
}

/// Returns whether a file has the secret of an example, apart from white space.
fn is_public(text: &str) -> bool {
    EXAMPLES.iter().any(|example| example.split_whitespace().eq(text.split_whitespace()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_example_is_known() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keys");
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            assert!(is_public(&fs::read_to_string(&file).unwrap()), "{}", file.display());
        }
        assert!(!is_public("") && !is_public("lab-psk"));
    }
}
