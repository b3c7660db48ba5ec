//! Whole texts: the examples, and random ones.

use super::{
    ike::{CONNECTION, proof::pki},
    *,
};
use proptest::prelude::*;

#[test]
fn every_example_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(examples.len() >= 5);
    let pki = pki();
    let path = pki.path().to_str().unwrap().to_owned();
    let environment = |name: &str| matches!(name, "LAB_PKI" | "PKI").then(|| path.clone());
    for example in examples {
        load_with(&example, &environment).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Texts that look more like a configuration than random ones.
fn almost() -> impl Strategy<Value = String> {
    let words = format!(
        "{}{}",
        tunnel("lifetime = { soft_time = \"1h\" }"),
        CONNECTION.replace('$', "remote = \"any\"")
    );
    let words: Vec<String> = words.split_inclusive(['\n', ' ', '"']).map(str::to_owned).collect();
    let count = words.len();
    let odd = prop_oneof![
        Just("-1".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("\"${\"".to_owned()),
        Just("\"::ffff:0:0/96\"".to_owned()),
        Just("[[[[".to_owned()),
        "\\PC{0,8}",
    ];
    proptest::collection::vec((0..count, odd), 0..4).prop_map(move |changes| {
        let mut words = words.clone();
        for (at, odd) in changes {
            words[at] = odd;
        }
        words.concat()
    })
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused_in_one_line(text in prop_oneof![".*", "\\PC*", almost()]) {
        let folder = Folder::new();
        if let Err(why) = folder.parse(&text) {
            prop_assert_eq!(why.to_string().lines().count(), 1, "{}", why);
        }
    }
}
