//! An EAP-TLS client.

use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, ProtocolVersion};
use std::{io::Read, sync::Arc};
use wayfarer_mobility::{
    aaa::eap::{
        Conversation, Step,
        packet::{Message, Packet, kind},
    },
    crypto::Secret,
};

/// Bytes of TLS data in a fragment, few enough that messages need several.
const FRAGMENT: usize = 300;

#[derive(Debug)]
pub(crate) struct TlsClient {
    name: Vec<u8>,
    connection: ClientConnection,
    incoming: Vec<u8>,
    outgoing: Vec<Vec<u8>>,
    /// The server's alert.
    pub(crate) alert: Option<AlertDescription>,
}

impl TlsClient {
    pub(crate) fn new(name: impl AsRef<[u8]>, config: ClientConfig) -> Self {
        let server = "radius.example".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), server).unwrap();
        Self { name: name.as_ref().to_vec(), connection, incoming: vec![], outgoing: vec![], alert: None }
    }

    /// Returns the Type-Data of the response to a request with this Type-Data.
    fn answer(&mut self, data: &[u8]) -> Vec<u8> {
        // Only an acknowledgement of the last fragment asks for the next one. Any other request
        // discards the rest.
        match self.outgoing.pop() {
            Some(fragment) if data == [0] => return fragment,
            _ => self.outgoing.clear(),
        }
        let (flags, mut rest) = data.split_first().unwrap();
        if flags & 0x80 != 0 {
            rest = &rest[4..];
        }
        self.incoming.extend(rest);
        if flags & 0x40 != 0 {
            return vec![0];
        }
        let bytes = std::mem::take(&mut self.incoming);
        let mut left = &bytes[..];
        while !left.is_empty() && self.connection.read_tls(&mut left).is_ok() {
            if let Err(Error::AlertReceived(alert)) = self.connection.process_new_packets() {
                self.alert = Some(alert);
            }
        }
        let mut message = vec![];
        while self.connection.wants_write() {
            self.connection.write_tls(&mut message).unwrap();
        }
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let count = message.chunks(FRAGMENT).count();
        for (i, part) in message.chunks(FRAGMENT).enumerate() {
            let more = if i + 1 < count { 0x40 } else { 0 };
            let length = if i == 0 { &length[..] } else { &[] };
            let flags = more | if i == 0 { 0x80 } else { 0 };
            self.outgoing.push([&[flags][..], length, part].concat());
        }
        self.outgoing.reverse();
        self.outgoing.pop().unwrap_or(vec![0])
    }

    fn msk(&mut self) -> Secret {
        let (label, context) = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => {
                let mut commitment = [9; 2];
                assert_eq!(self.connection.reader().read(&mut commitment).unwrap(), 1);
                assert_eq!(commitment[0], 0);
                (&b"EXPORTER_EAP_TLS_Key_Material"[..], Some(&[13][..]))
            }
            _ => (&b"client EAP encryption"[..], None),
        };
        let keys = self.connection.export_keying_material(vec![0; 128], label, context).unwrap();
        Secret::new(keys[..64].to_vec())
    }
}

impl Conversation for TlsClient {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let (id, kind, data) = match Packet::parse(packet) {
            Some(Packet::Request(Message { id, kind: kind::IDENTITY, .. })) => {
                (id, kind::IDENTITY, self.name.clone())
            }
            Some(Packet::Request(Message { id, kind: kind::TLS, data })) => {
                (id, kind::TLS, self.answer(data))
            }
            Some(Packet::Request(Message { id, .. })) => (id, kind::NAK, vec![kind::TLS]),
            Some(Packet::Success(_)) => return Step::Success(vec![], Some(self.msk())),
            _ => return Step::Failure(vec![]),
        };
        Step::Send(Packet::Response(Message { id, kind, data: &data }).emit())
    }

    fn identity(&self) -> Option<&[u8]> {
        None
    }
}
