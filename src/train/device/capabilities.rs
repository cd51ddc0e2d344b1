//! What a device can do, which only the open device says: how its kernels are compiled, on which
//! formats it has tensor cores, its limits.

use serde::Serialize;

/// What an open GPU computes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// What its kernels are compiled to: WGSL, SPIR-V, MSL, PTX.
    pub compiler: String,
    /// Formats of matrix products that it has instructions for: f16, bf16, tf32.
    pub tensor_cores: Vec<&'static str>,
    /// Bytes that may be used of its memory, where the compute runtime says so.
    pub memory: Option<u64>,
    pub limits: Limits,
}

/// What a kernel may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of the largest buffer.
    pub buffer: u64,
    /// Bytes that the threads of a workgroup share.
    pub shared_memory: u64,
    /// Threads of a workgroup.
    pub workgroup: u32,
    /// Buffers of a kernel.
    pub bindings: u32,
}

/// The compiler of a runtime, by the name that the runtime has itself.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "only GPUs compile kernels"))]
fn compiler(runtime: &str) -> String {
    match runtime {
        "wgpu<wgsl>" => "WGSL",
        "wgpu<spirv>" => "SPIR-V",
        "wgpu<msl>" => "MSL",
        "cuda" => "PTX",
        "hip" => "AMDGPU",
        other => other,
    }
    .to_owned()
}

#[cfg(feature = "wgpu")]
impl Capabilities {
    pub(super) fn of(client: &cubecl::client::Client) -> Self {
        use cubecl::ir::{ElemType, FloatKind};
        let properties = client.properties();
        let multiplied = |kind| {
            let is = |elem: &ElemType| *elem == ElemType::Float(kind);
            properties.features.matmul.cmma.iter().any(|config| is(&config.a_type))
        };
        let formats =
            [("f16", FloatKind::F16), ("bf16", FloatKind::BF16), ("tf32", FloatKind::TF32)];
        Self {
            compiler: compiler(client.name()),
            tensor_cores: formats
                .into_iter()
                .filter(|(_, kind)| multiplied(*kind))
                .map(|(name, _)| name)
                .collect(),
            memory: properties.memory.max_memory(),
            limits: Limits {
                buffer: properties.memory.max_page_size,
                shared_memory: properties.hardware.max_shared_memory_size as u64,
                workgroup: properties.hardware.max_units_per_cube,
                bindings: properties.hardware.max_bindings,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::compiler;

    #[test]
    fn compilers_have_the_names_of_their_languages() {
        let names = ["wgpu<wgsl>", "wgpu<spirv>", "wgpu<msl>", "cuda", "new"].map(compiler);
        assert_eq!(names, ["WGSL", "SPIR-V", "MSL", "PTX", "new"]);
    }
}
