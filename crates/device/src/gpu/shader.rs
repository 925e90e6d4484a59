//! The one place where WGSL becomes a shader module, without the checks that wgpu would add at run time.
#![allow(unsafe_code)]

/// Compiles a generated source.
pub(super) fn create(device: &wgpu::Device, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    // SAFETY: the sources come from this crate's generators only, which keep to the following.
    // - Memory: every index into a storage buffer lies inside of its binding. Affine addresses do for all indices of a
    //   kernel's space by the kernel's contract, and a launch is refused unless each buffer has the bytes that these
    //   addresses reach, computed from the same numbers (`Program::check`). Guarded addresses and those of vectors that
    //   end beyond the space are bounded by the last element of the binding; indices that come from data are moved
    //   inside before they are used, and what is read through several windows is bounded in each (`access`). Blocks are multiples of 256 bytes, so that a vector that begins inside
    //   of the bytes asked for ends inside of the binding. Places in scratch and temporary memory are computed from
    //   sizes that were checked against it when the kernel was planned. Indices into workgroup memory follow from the
    //   invocation's number alone.
    // - Loops: all of them count up to a bound of at most 2^31, by a step that is not 0.
    // - Integer division: divisors are at least 1 (`u_div`, `u_rem`, `f_rem`), and the signed ones are built on those.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
