//! Inner addresses to give away.

use crate::config::{
    error::{ConfigResult, Rule},
    field::Unique,
    file,
    model::{Config, PoolRange},
    source::Source,
    value,
};
use toml::Spanned;

/// All pools. None overlaps another one or holds an address of ours.
pub(super) fn pools(
    source: &Source<'_>,
    raw: &[Spanned<file::Pool>],
    config: &Config,
) -> ConfigResult<Vec<PoolRange>> {
    let mut names = Unique::new();
    let mut pools: Vec<PoolRange> = Vec::with_capacity(raw.len());
    for raw_pool in raw {
        let file::Pool { name, addresses } = raw_pool.get_ref();
        let own = || config.ports.iter().flat_map(|port| port.addresses.iter().map(|(own, _)| *own));
        let (first, last) = source.value("pool.addresses", addresses, |text| {
            let (first, last) = value::pool(text)?;
            let overlaps = |pool: &PoolRange| pool.first <= last && first <= pool.last;
            if let Some((before, _)) = raw.iter().zip(&pools).find(|(_, pool)| overlaps(pool)) {
                return Err(Rule::Overlap(source.line(&before.get_ref().addresses.span())));
            }
            let holds = |own: &_| (first..=last).contains(own);
            own().find(holds).map_or(Ok((first, last)), |own| Err(Rule::OwnInPool(own)))
        })?;
        let name = source.value("pool.name", name, |text| {
            names.add(source, text.clone(), name.span())?;
            value::name(text)
        })?;
        pools.push(PoolRange { name, first, last });
    }
    Ok(pools)
}
