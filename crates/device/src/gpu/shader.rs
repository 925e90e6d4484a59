//! The only place that creates shader modules from WGSL, without the checks that wgpu would add at run time.
#![allow(unsafe_code)]

/// Compiles a generated source.
pub(super) fn create(device: &wgpu::Device, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    // SAFETY: the sources come only from this crate's generators, which uphold the following.
    // - Memory: every index into a storage buffer lies inside of its binding. Affine addresses do so for all
    //   indices of a kernel's space by the kernel's contract, and a launch is refused unless each buffer has
    //   the bytes that these addresses reach, computed from the same sizes, strides and offsets
    //   (`GpuProgram::check`). An index that a product splits into several dims is below the product of their
    //   sizes, since that is its own dim's size (`Matmul::fits`). Guarded addresses and those of vectors that
    //   end beyond the space are clamped to the last element of the binding; indices that come from data are
    //   clamped before they are used, and reads through several windows are clamped in each (`access`). A
    //   vector that begins at an element of the space, as those of products do that straddle the end of the
    //   inner dim, ends inside of the binding: it begins at a multiple of four elements, since the strides
    //   and the offset are multiples of four, and blocks and windows are multiples of 256 bytes.
    // - Scratch and temporary memory: places are computed from sizes that were checked against the memory
    //   when the kernel was planned. The place to which a radix sort moves a key is a prefix sum of the digit
    //   counts of the same keys: the counts sum to the row's length, and each key has a place of its own.
    // - Workgroup memory: indices are computed from the invocation's number, except for the first wanted
    //   place of a sorted row, which together with the number of wanted places lies inside of the row
    //   (`Sort::fits`).
    // - Loops: all of them end. They count up to a bound of at most 2^31 by a step that is not 0. Those of
    //   the sorting network double and halve a number of at most 1,024: ten rounds of at most ten steps.
    // - Integer division: divisors are at least 1 (`u_div`, `u_rem`, `f_rem`, `d_rem`, and a sort's padded
    //   length), and the signed divisions are built on these.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
