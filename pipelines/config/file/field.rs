//! Types of values that several tables share.

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::fmt;
use toml::Spanned;
use wayfarer_mobility::roaming;

/// An optional key.
pub(in crate::config) type Key<T> = Option<Spanned<T>>;

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Mode {
    Tunnel,
    Transport,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum PathProbing {
    Off,
    Udp,
    Always,
}

/// A policy for peers that roam, by its name.
#[derive(Clone, Copy)]
pub(in crate::config) struct Roam(pub roaming::Policy);

impl<'de> Deserialize<'de> for Roam {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "follow" => Ok(Self(roaming::Policy::Follow)),
            "notify" => Ok(Self(roaming::Policy::Notify)),
            "ignore" => Ok(Self(roaming::Policy::Ignore)),
            "home_agent" => Ok(Self(roaming::Policy::HomeAgent)),
            other => Err(D::Error::unknown_variant(other, &["follow", "notify", "ignore", "home_agent"])),
        }
    }
}

/// A number, or a text with a unit or a word.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Scalar {
    Integer(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One number or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Numbers(pub Vec<i64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a list of integers")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Numbers, E> {
                Ok(Numbers(vec![value]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Numbers, A::Error> {
                let mut list = vec![];
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Numbers(list))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// One string or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct List(pub Vec<String>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<List, E> {
                Ok(List(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
                let mut list = vec![];
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
