//! Which layers of a network the names in `target_modules` and `rank_pattern` mean.

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
const PROJECTIONS: [&str; 3] = ["Struct:Linear", "Struct:Projection", "Struct:Pointwise"];
/// Likewise those that are convolutions.
const CONVOLUTION: &str = "Struct:Conv2d";

/// A layer of a network that can get factors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub path: String,
    pub outputs: usize,
    /// Numbers that go into one output.
    pub inputs: usize,
    /// Of its weight, as PyTorch has it.
    pub shape: Vec<usize>,
    pub is_convolution: bool,
}

/// The projections and convolutions of a module, in the order of their names.
pub(super) fn layers<M: burn::module::Module>(module: &M) -> Vec<Layer> {
    let mut found: Vec<Layer> = walk(module)
        .into_iter()
        .filter_map(|p| {
            let is_convolution = p.container == CONVOLUTION;
            if !is_convolution && !PROJECTIONS.contains(&p.container.as_str()) {
                return None;
            }
            let path = p.name.strip_suffix(".weight")?.to_owned();
            let (outputs, rest) = p.shape.split_first()?;
            let (outputs, inputs) = (*outputs, rest.iter().product());
            (!rest.is_empty()).then_some(Layer {
                path,
                outputs,
                inputs,
                shape: p.shape,
                is_convolution,
            })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Layer {
    /// Whether a name of `target_modules` means this layer. A convolution is meant by its own name
    /// alone: what covers whole blocks (`middle.*`), and the word for all, mean projections.
    pub fn is_target_of(&self, target: &str) -> bool {
        let last = target.rsplit('.').next().unwrap_or(target);
        let is_named = target != ALL && !last.contains(['*', '?']);
        (is_named || !self.is_convolution) && matches_target(target, &self.path)
    }
}

/// The word for all projections.
const ALL: &str = "all-linear";

/// Whether a name of `target_modules` or `rank_pattern` covers the layer at `path`.
pub(super) fn matches_target(target: &str, path: &str) -> bool {
    if target == ALL {
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

/// The names that `target_modules` can hold without a path. Members of a list have none.
pub(super) fn short_names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let names: BTreeSet<String> = paths.into_iter().map(last).collect();
    names.into_iter().filter(|name| name.parse::<usize>().is_err()).collect()
}

/// The names that mean some layers of these: those of projections, then those of convolutions.
pub(super) fn names_of(layers: &[Layer]) -> Vec<String> {
    let of = |is_convolution: bool| {
        let some = layers.iter().filter(move |layer| layer.is_convolution == is_convolution);
        short_names(some.map(|layer| layer.path.as_str()))
    };
    let (mut names, convolutions) = (of(false), of(true));
    names.extend(convolutions.into_iter().filter(|name| !of(false).contains(name)));
    names
}

/// Refuses a plain name that no network of any architecture has, before any network is there.
pub(super) fn check_name(target: &str, known: &Architectures) -> Result<(), TargetError> {
    if target.contains(['*', '?', '.']) || target == ALL {
        return Ok(());
    }
    let device = burn::tensor::Device::flex();
    let networks = known.iter().filter_map(|arch| arch.smallest().skeleton(&device).ok());
    let found: Vec<Layer> = networks.flat_map(|network| layers(&network)).collect();
    if found.iter().any(|layer| layer.is_target_of(target)) {
        Ok(())
    } else {
        let available = names_of(&found);
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
            "`query` matches no projection; there are: affine, fc1, fc2, proj, qkv, qkv_s, qkv_t, skip, \
             conv, conv1, conv2, head, stem, tokenizer"
        );
        assert_eq!(check_name("qkv", &known), Ok(()));
        assert_eq!(check_name("encoder.9.*", &known), Ok(()), "depends on the network");
    }
}
