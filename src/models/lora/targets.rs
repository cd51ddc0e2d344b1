//! Which projections of a network the names in `target_modules` and `rank_pattern` mean.

use std::collections::BTreeSet;

use wildmatch::WildMatch;

use crate::architecture::Architectures;
use crate::nn::walk;

/// A name that means nothing in this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` matches no projection; there are: {}", available.join(", "))]
pub struct TargetError {
    /// The setting that holds the name: `target_modules` or `rank_pattern`.
    pub key: &'static str,
    pub name: String,
    pub available: Vec<String>,
}

/// Key of the names of the projections that get factors.
pub(super) const TARGETS: &str = "target_modules";
/// Key of the names of those that get a rank of their own.
pub(super) const RANKS: &str = "rank_pattern";

/// Layers that are projections, by burn's names of their types.
const LAYERS: [&str; 3] = ["Struct:Linear", "Struct:Projection", "Struct:Pointwise"];

/// A projection of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Projection {
    pub path: String,
    pub outputs: usize,
    pub inputs: usize,
    /// Of its weight, as PyTorch has it.
    pub shape: Vec<usize>,
}

/// The projections of a module, in the order of their names.
pub(super) fn projections<M: burn::module::Module>(module: &M) -> Vec<Projection> {
    let mut found: Vec<Projection> = walk(module)
        .into_iter()
        .filter(|p| LAYERS.contains(&p.container.as_str()))
        .filter_map(|p| {
            let path = p.name.strip_suffix(".weight")?.to_owned();
            let [outputs, inputs, ..] = p.shape[..] else { return None };
            Some(Projection { path, outputs, inputs, shape: p.shape })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Whether a name of `target_modules` or `rank_pattern` means the projection at `path`.
pub(super) fn matches_target(target: &str, path: &str) -> bool {
    if target == "all-linear" {
        return true;
    }
    if target.contains(['*', '?']) {
        return matches(target, path);
    }
    let last = path.rsplit('.').next().unwrap_or(path);
    let family = last.strip_prefix(target).is_some_and(|rest| rest.starts_with('_'));
    path == target || path.ends_with(&format!(".{target}")) || family
}

/// Whether a pattern with `*` for any characters covers a whole path.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    WildMatch::new(pattern).matches(path)
}

/// The names that `target_modules` can hold without a path.
pub(super) fn short_names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    paths.into_iter().map(last).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Refuses a plain name that no network of any architecture has, before any network is there.
pub(super) fn check_name(target: &str, known: &Architectures) -> Result<(), TargetError> {
    if target.contains(['*', '?', '.']) || target == "all-linear" {
        return Ok(());
    }
    let device = burn::tensor::Device::flex();
    let networks = known.iter().filter_map(|arch| arch.smallest().skeleton(&device).ok());
    let found: Vec<Projection> = networks.flat_map(|network| projections(&network)).collect();
    if found.iter().any(|p| matches_target(target, &p.path)) {
        Ok(())
    } else {
        let available = short_names(found.iter().map(|p| p.path.as_str()));
        Err(TargetError { key: TARGETS, name: target.to_owned(), available })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_last_part_a_family_the_end_of_a_path_or_a_pattern() {
        let path = "encoder.0.1.block.attn.qkv_s";
        for target in ["qkv_s", "qkv", "attn.qkv_s", path, "encoder.*", "*qkv_s", "all-linear"] {
            assert!(matches_target(target, path), "{target}");
        }
        for target in ["qk", "kv_s", "qkv_t", "encoder", "block", "decoder.*", "ttn.qkv_s"] {
            assert!(!matches_target(target, path), "{target}");
        }
    }

    #[test]
    fn a_name_that_no_network_has_is_refused_with_those_there_are() {
        let known = Architectures::builtin();
        let error = check_name("query", &known).unwrap_err().to_string();
        assert_eq!(
            error,
            "`query` matches no projection; there are: affine, fc1, fc2, proj, qkv, qkv_s, qkv_t, skip"
        );
        assert_eq!(check_name("qkv", &known), Ok(()));
        assert_eq!(check_name("encoder.9.*", &known), Ok(()), "depends on the network");
    }
}
