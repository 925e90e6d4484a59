//! The one place where WGSL becomes a shader module.

/// Compiles a generated source.
pub(super) fn create(device: &wgpu::Device, wgsl: &str) -> wgpu::ShaderModule {
    device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    })
}
