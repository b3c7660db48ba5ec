//! Apple's property lists, in XML.

use base64ct::{Base64, Encoding};
use std::fmt::{self, Write};

/// A value of a property list.
pub(super) enum Value {
    Text(String),
    Number(u32),
    Flag(bool),
    Data(Vec<u8>),
    List(Vec<Self>),
    Table(Vec<(&'static str, Self)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// Returns a property list as a document.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n",
    );
    // Writing to a String does not fail.
    let _ = value.write(&mut out, 0);
    out + "</plist>\n"
}

impl Value {
    fn write(&self, out: &mut String, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        match self {
            Self::Text(text) => writeln!(out, "{indent}<string>{}</string>", escaped(text)),
            Self::Number(number) => writeln!(out, "{indent}<integer>{number}</integer>"),
            Self::Flag(flag) => writeln!(out, "{indent}<{flag}/>"),
            Self::Data(data) => writeln!(out, "{indent}<data>{}</data>", Base64::encode_string(data)),
            Self::List(items) => {
                writeln!(out, "{indent}<array>")?;
                items.iter().try_for_each(|item| item.write(out, depth + 1))?;
                writeln!(out, "{indent}</array>")
            }
            Self::Table(items) => {
                writeln!(out, "{indent}<dict>")?;
                for (key, value) in items {
                    writeln!(out, "{indent}  <key>{key}</key>")?;
                    value.write(out, depth + 1)?;
                }
                writeln!(out, "{indent}</dict>")
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
