//! burn's and CubeCL's own configuration. They would read `burn.toml` and `cubecl.toml` of the
//! working folder or of any folder above it, and variables of the environment (`CUBECL_*`,
//! `BURN_*`): which kernels run, and so the bits of a training, would depend on files that nobody
//! looks for, and logs would be written where they say.

/// burn's configuration. Searching several blocks for what can be fused breaks more chains than it
/// joins: with one, a step of a DiffiT launches fewer kernels (`pipe bench --count`).
fn burn() -> burn_std::config::BurnConfig {
    // It has no other way in.
    let settings = serde_json::json!({"fusion": {"beam_search": {"max_blocks": 1}}});
    serde_json::from_value(settings).unwrap_or_default()
}

/// Sets both configurations to this program's, in place of files and variables. To be called before
/// the first tensor of the process; further calls do nothing.
pub fn fix() {
    use burn_std::config::{BurnConfig, RuntimeConfig};
    BurnConfig::try_set(burn());
    #[cfg(feature = "wgpu")]
    {
        let mut cubecl = cubecl::config::CubeClRuntimeConfig::default();
        // Every thread would get a pool of memory of its own on the GPU, which keeps what it once
        // had: a second stage or attempt could not have what the first one used.
        cubecl.streaming.max_streams = 1;
        cubecl::config::CubeClRuntimeConfig::try_set(cubecl);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_block_is_searched() {
        assert_eq!(super::burn().fusion().beam_search.max_blocks, 1);
    }
}
