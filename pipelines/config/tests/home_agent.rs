//! The gateway's own home agent.

use super::*;
use wayfarer_mobility::mip::{
    agent::ReverseTunnel,
    association::{Algorithm, Replay},
    wire::Encapsulation,
};

const AGENT: &str = "[home_agent]\naddress = \"10.99.0.1\"\nnetwork = \"10.97.0.0/24\"\n";
const TERMINAL: &str = "[[home_agent.terminal]]\nhome = \"10.97.0.7\"\nspi = 300\nsecret_file = \"ppk\"\n";

fn parsed(keys: &str) -> HomeAgent {
    Folder::new().parse(&format!("{PORTS}{AGENT}{keys}")).unwrap().home_agent.unwrap()
}

/// Returns the rule that an error names, without its place.
fn refused(text: &str) -> String {
    let error = Folder::new().parse(&format!("{PORTS}{text}")).unwrap_err().to_string();
    error.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn a_home_agent_has_the_usual_settings_unless_it_has_others() {
    let usual = parsed(TERMINAL);
    assert_eq!(usual.store, Some(PathBuf::from("/var/lib/wayfarer/bindings")));
    assert_eq!((usual.lifetime, usual.reverse_tunnel), (1800, ReverseTunnel::Allowed));
    assert_eq!(usual.encapsulations, []);
    let terminal = &usual.terminals[0];
    assert_eq!(
        (terminal.home, terminal.spi, terminal.nai.as_deref()),
        ("10.97.0.7".parse().unwrap(), 300, None)
    );
    assert_eq!(terminal.algorithm, Algorithm::HmacSha256);
    assert_eq!(terminal.replay, Replay::Timestamps(Duration::from_secs(7)));
    assert_eq!(*terminal.secret, vec![0xab; 32]);
    assert!(!format!("{usual:?}").contains("171"), "no byte of the key is shown");
    let keys = "store = \"none\"\nlifetime = \"none\"\nreverse_tunnel = \"required\"\nencapsulations = [\"gre\", \"minimal\"]\n";
    let more = "algorithm = \"hmac-md5\"\nreplay = \"nonces\"\nnai = \"van@example.net\"\n";
    let other = parsed(&format!("{keys}{TERMINAL}{more}"));
    assert_eq!(other.store, None);
    assert_eq!((other.lifetime, other.reverse_tunnel), (u16::MAX, ReverseTunnel::Required));
    assert_eq!(other.encapsulations, [Encapsulation::Gre, Encapsulation::Minimal]);
    let terminal = &other.terminals[0];
    assert_eq!((terminal.algorithm, terminal.replay), (Algorithm::HmacMd5, Replay::Nonces));
    assert_eq!(terminal.nai.as_deref(), Some("van@example.net"));
}

#[test]
fn a_tunnel_without_a_home_agent_elsewhere_follows_the_own_one() {
    let follows = "roam = \"home_agent\"\nhome = \"10.97.0.7\"";
    let tunnel = TUNNEL.replace('$', follows);
    let config = Folder::new().parse(&format!("{PORTS}{AGENT}{TERMINAL}{tunnel}")).unwrap();
    let agent = "10.99.0.1".parse().unwrap();
    assert_eq!(config.tunnels[0].home, Some(Home { agent, address: "10.97.0.7".parse().unwrap() }));
}

#[test]
fn wrong_home_agents_and_terminals_are_refused() {
    let with = |from: &str, to: &str| refused(&format!("{AGENT}{TERMINAL}").replace(from, to));
    for (from, to, expected) in [
        (
            "\"10.99.0.1\"",
            "\"10.99.0.2\"",
            "home_agent.address = \"10.99.0.2\": no [[port]] has this address",
        ),
        (
            "\"10.99.0.1\"",
            "\"2001:db8::1\"",
            "home_agent.address = \"2001:db8::1\": must be IPv4, the only family of the home agent",
        ),
        (
            "10.97.0.0/24",
            "fd00::/64",
            "home_agent.network = \"fd00::/64\": must be IPv4, the only family of the home agent",
        ),
        (
            "10.97.0.7",
            "10.98.0.7",
            "home_agent.terminal.home = \"10.98.0.7\": must be within \"network\" of [home_agent]",
        ),
        ("spi = 300", "spi = 255", "home_agent.terminal.spi = 255: must be from 256 to 4294967295"),
        ("\"ppk\"", "\"empty\"", "home_agent.terminal.secret_file = \"empty\": file is empty"),
        (
            "network",
            "lifetime = \"19h\"\nnetwork",
            "home_agent.lifetime = \"19h\": must be from 1s to 65534s, or \"none\" for no end",
        ),
    ] {
        assert_eq!(with(from, to), expected);
    }
    let window = format!("{AGENT}{TERMINAL}replay = \"nonces\"\nwindow = \"7s\"\n");
    let expected = "home_agent.terminal.window = \"7s\": has no meaning with replay = \"nonces\"";
    assert_eq!(refused(&window), expected);
    let long = format!("{AGENT}{TERMINAL}nai = \"{}\"\n", "x".repeat(256));
    assert!(refused(&long).ends_with("must have 1 to 255 bytes"));
    let named = format!("{TERMINAL}nai = \"van\"\n");
    for (second, key) in [(TERMINAL.to_owned(), "home"), (named.replace("0.7", "0.8"), "nai")] {
        let error = refused(&format!("{AGENT}{named}{second}"));
        assert!(error.starts_with(&format!("home_agent.terminal.{key} ")), "{error}");
        assert!(error.contains("already used in line"), "{error}");
    }
}
