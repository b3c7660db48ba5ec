//! Home agents, as `wayfarer show` writes them.

use super::table::{
    self,
    Align::{Left, Right},
    seconds,
};
use std::io::{self, Write};
use wayfarer::control::protocol::{BindingView, FollowerView, HomeAgentView};

/// Writes a line for each home agent, and then one for each link that follows it.
pub(super) fn write(out: &mut impl Write, all: &[HomeAgentView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no [[siu]] in the configuration");
    }
    let columns = [
        ("HOME AGENT", Left),
        ("ADDRESS", Left),
        ("DONE", Right),
        ("UNKNOWN LINK", Right),
        ("REFUSED", Right),
        ("UNREACHABLE", Right),
        ("ANSWERED ONLY", Right),
        ("MALFORMED", Right),
    ];
    let row = |agent: &HomeAgentView| {
        let HomeAgentView { done, unknown_link, refused, unreachable, answered_only, malformed, .. } = agent;
        let counts = [done, unknown_link, refused, unreachable, answered_only, malformed];
        let names = [agent.name.clone(), agent.address.clone()];
        names.into_iter().chain(counts.map(u64::to_string)).collect()
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())?;
    let link = |agent: &HomeAgentView, link: &FollowerView| {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let parts = [&link.tunnel, &link.home, &or_none(&link.care_of), &or_none(&link.path), &agent.name];
        parts.map(String::clone).to_vec()
    };
    let links: Vec<_> =
        all.iter().flat_map(|agent| agent.links.iter().map(move |one| link(agent, one))).collect();
    if links.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns = [("TUNNEL", Left), ("HOME", Left), ("CARE-OF", Left), ("PATH", Left), ("HOME AGENT", Left)];
    table::write(out, &columns, &links)
}

/// Writes a line for each binding.
pub(super) fn write_bindings(out: &mut impl Write, all: &[BindingView]) -> io::Result<()> {
    let columns =
        [("HOME", Left), ("CARE-OF", Left), ("TUNNEL", Left), ("REVERSE", Left), ("ENDS IN", Right)];
    let row = |one: &BindingView| {
        vec![
            one.home.clone(),
            one.care_of.clone(),
            one.encapsulation.clone(),
            if one.reverse_tunnel { "yes" } else { "no" }.to_owned(),
            one.ends_in_s.map_or_else(|| "never".into(), seconds),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_agent_is_one_line_and_each_link_that_follows_it() {
        let link = FollowerView {
            tunnel: "van".into(),
            home: "10.97.0.7".into(),
            care_of: Some("192.0.2.7".into()),
            path: None,
        };
        let agent = HomeAgentView {
            name: "corporate".into(),
            address: "10.0.0.2".into(),
            done: 1,
            unknown_link: 2,
            refused: 3,
            unreachable: 4,
            answered_only: 5,
            malformed: 6,
            links: vec![link],
        };
        let text = |all: &[HomeAgentView]| {
            let mut out = vec![];
            write(&mut out, all).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = text(&[agent]);
        let cells = |line: usize| shown.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(cells(1), ["corporate", "10.0.0.2", "1", "2", "3", "4", "5", "6"]);
        assert_eq!(cells(4), ["van", "10.97.0.7", "192.0.2.7", "-", "corporate"]);
        assert_eq!(text(&[]), "no [[siu]] in the configuration\n");
    }

    #[test]
    fn a_binding_is_one_line() {
        let binding = BindingView {
            home: "10.97.0.7".into(),
            care_of: "192.0.2.7".into(),
            encapsulation: "ipip".into(),
            reverse_tunnel: true,
            ends_in_s: None,
        };
        let mut out = vec![];
        write_bindings(&mut out, &[binding]).unwrap();
        let shown = String::from_utf8(out).unwrap();
        let cells: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["10.97.0.7", "192.0.2.7", "ipip", "yes", "never"]);
    }
}
