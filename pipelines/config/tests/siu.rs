//! Home agents, and tunnels that follow them.

use super::*;

const SIU: &str = "[[siu]]\nname = \"corporate\"\naddress = \"10.99.0.2\"\nkey = 7\nsecret_file = \"ppk\"\n";
const FOLLOWS: &str = "roam = \"home_agent\"\nsiu = \"corporate\"\nhome = \"10.97.0.7\"";

fn text(siu: &str, keys: &str) -> String {
    format!("{PORTS}{siu}{}", TUNNEL.replace('$', keys))
}

/// Returns the rule that an error names, without its place.
fn refused(text: &str) -> String {
    let error = Folder::new().parse(text).unwrap_err().to_string();
    error.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn a_tunnel_follows_the_home_agent_that_it_names() {
    let config = Folder::new().parse(&text(SIU, FOLLOWS)).unwrap();
    let siu = &config.siu[0];
    assert_eq!((&siu.name[..], siu.address, siu.key.number), ("corporate", "10.99.0.2".parse().unwrap(), 7));
    assert_eq!(*siu.key.secret, vec![0xab; 32]);
    assert_eq!(format!("{siu:?}").matches("171").count(), 0, "no byte of the key is shown");
    let home = Home { agent: siu.address, address: "10.97.0.7".parse().unwrap() };
    assert_eq!((config.tunnels[0].roam, config.tunnels[0].home), (Roam::HomeAgent, Some(home)));
    assert_eq!(config.gateway.siu_port, 4434);
    let other = Folder::new().parse(&format!("[gateway]\nsiu_port = 5000\n{PORTS}")).unwrap();
    assert_eq!((other.gateway.siu_port, other.siu.len()), (5000, 0));
}

#[test]
fn wrong_home_agents_are_refused() {
    let with = |from: &str, to: &str| refused(&text(&SIU.replace(from, to), FOLLOWS));
    assert_eq!(with("10.99.0.2", "10.99.0.1"), "siu.address = \"10.99.0.1\": is the gateway's own address");
    assert_eq!(with("key = 7", "key = -1"), "siu.key = -1: must be from 0 to 4294967295");
    assert_eq!(with("ppk", "empty"), "siu.secret_file = \"empty\": file is empty");
    for (again, key) in [
        (SIU.replace("10.99.0.2", "10.99.0.3").replace("= 7", "= 8"), "siu.name = \"corporate\""),
        (SIU.replace("corporate", "other").replace("= 7", "= 8"), "siu.address = \"10.99.0.2\""),
        (SIU.replace("corporate", "other").replace("10.99.0.2", "10.99.0.3"), "siu.key = 7"),
    ] {
        let error = refused(&text(&format!("{SIU}{again}"), FOLLOWS));
        assert!(error.starts_with(&format!("{key}: ")) && error.contains("already used in line"), "{error}");
    }
    let error = refused(&format!("[gateway]\nencap_ports = [4500, 4434]\n{PORTS}"));
    assert_eq!(error, "gateway: missing key \"siu_port\", which UDP port 4434 in encap_ports needs");
    for port in ["500", "4500"] {
        let error = refused(&format!("[gateway]\nsiu_port = {port}\n{PORTS}"));
        assert!(error.ends_with("the gateway receives ESP or IKE on this port: take another"), "{error}");
    }
}

#[test]
fn wrong_followers_are_refused() {
    let tunnel = |keys: &str| refused(&text(SIU, keys));
    assert_eq!(
        tunnel(&FOLLOWS.replace("corporate", "corporat")),
        "tunnel.siu = \"corporat\": no [[siu]] has this name"
    );
    for (without, missing) in [("siu = \"corporate\"\n", "siu"), ("\nhome = \"10.97.0.7\"", "home")] {
        let error = tunnel(&FOLLOWS.replace(without, ""));
        assert!(error.contains(&format!("\"{missing}\"")) && error.contains("home_agent"), "{error}");
    }
    let pointless = "has no meaning with roam other than \"home_agent\"";
    assert_eq!(tunnel("siu = \"corporate\""), format!("tunnel.siu = \"corporate\": {pointless}"));
    assert_eq!(tunnel("home = \"10.97.0.7\""), format!("tunnel.home = \"10.97.0.7\": {pointless}"));
    let with_home_agent = "has no meaning with roam = \"home_agent\"";
    assert_eq!(
        tunnel(&format!("{FOLLOWS}\npin_source = true")),
        format!("tunnel.pin_source = true: {with_home_agent}")
    );
    let second = TUNNEL.replace("alice", "bob").replace("0x1001", "0x1002").replace('$', FOLLOWS);
    let error = refused(&(text(SIU, FOLLOWS) + &second));
    assert!(
        error.starts_with("tunnel.home = \"10.97.0.7\": ") && error.contains("already used in line"),
        "{error}"
    );
    let fixed = text(SIU, FOLLOWS).replace("\"any\"", "\"192.0.2.7\"");
    assert_eq!(refused(&fixed), "tunnel.remote = \"192.0.2.7\": must be \"any\" with roam = \"home_agent\"");
    let transport = text(SIU, FOLLOWS)
        .replace("\"any\"", "\"192.0.2.7\"\nmode = \"transport\"")
        .replace("inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"10.98.0.7/32\"]\n", "");
    assert_eq!(refused(&transport), "tunnel.roam = \"home_agent\": has no meaning with mode = \"transport\"");
}
