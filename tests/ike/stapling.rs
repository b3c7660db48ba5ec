//! What responders say of a certificate goes along with it, if the other side asks (RFC 4806).

use crate::{
    doubles::{FakeCertificate, user, users},
    pair::Pair,
};
use std::sync::Arc;
use wayfarer::sim::ike::connections::{gateway, terminal};
use wayfarer_mobility::ike::connection::{Connection, LocalAuth, RemoteAuth};

fn certificate(name: &str, wants_ocsp: bool) -> Arc<FakeCertificate> {
    Arc::new(FakeCertificate::of(name).stapling(format!("{name} is good").as_bytes(), wants_ocsp))
}

fn with(connection: Connection, certificate: &Arc<FakeCertificate>) -> Connection {
    let (local_auth, remote_auth) =
        (LocalAuth::Key(certificate.clone()), RemoteAuth::Key(certificate.clone()));
    Connection { local_auth, remote_auth, ..connection }
}

#[test]
fn each_side_gets_what_it_asks_for() {
    for (here, there) in [(true, true), (true, false), (false, true), (false, false)] {
        let (ours, theirs) = (certificate("gw.test", here), certificate("cl.test", there));
        let pair = Pair::connected(with(gateway(), &ours), with(terminal(), &theirs));
        pair.assert_one_each();
        let expected =
            |name: &str, wanted| if wanted { vec![format!("{name} is good").into_bytes()] } else { vec![] };
        assert_eq!(ours.brought(), expected("cl.test", here), "{here} {there}");
        assert_eq!(theirs.brought(), expected("gw.test", there), "{here} {there}");
    }
}

#[test]
fn an_eap_client_gets_what_is_said_of_the_gateways_certificate() {
    for wanted in [true, false] {
        let (ours, theirs) = (certificate("gw.test", false), certificate("cl.test", wanted));
        let gateway = Connection { remote_auth: RemoteAuth::Eap(users(&["cl"])), ..with(gateway(), &ours) };
        let terminal = Connection { local_auth: LocalAuth::Eap(user("cl")), ..with(terminal(), &theirs) };
        let pair = Pair::connected(gateway, terminal);
        pair.assert_one_each();
        assert_eq!(theirs.brought().len(), usize::from(wanted));
    }
}
