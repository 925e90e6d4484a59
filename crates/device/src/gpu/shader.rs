//! The one place where WGSL becomes a shader module, without the checks that wgpu would add at run time.
#![allow(unsafe_code)]

/// Compiles a generated source.
pub(super) fn create(device: &wgpu::Device, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    // SAFETY: the sources come from this crate's generators only, which keep to the following.
    // - Memory: every index into a storage buffer lies inside of its binding. Affine addresses do for all
    //   indices of a kernel's space by the kernel's contract, and a launch is refused unless each buffer has
    //   the bytes that these addresses reach, computed from the same numbers (`GpuProgram::check`). An index
    //   that a product takes apart into several dims is below their sizes' product, since that is its own
    //   dim's size (`Matmul::fits`). Guarded addresses and those of vectors that end beyond the space are
    //   bounded by the last element of the binding; indices that come from data are moved inside before they
    //   are used, and what is read through several windows is bounded in each (`access`). A vector that
    //   begins at an element of the space, as those of products do that straddle the end of the inner dim,
    //   ends inside of the binding: it begins at a multiple of four elements, since the strides and the
    //   offset are such, and blocks and windows are multiples of 256 bytes.
    // - Scratch and temporary memory: places are computed from sizes that were checked against it when the
    //   kernel was planned. Where radix moves a key follows from counts of the digits of the same keys: they
    //   sum to the row's length, and each key takes a place of its own.
    // - Workgroup memory: indices follow from the invocation's number, except for the place in a row from
    //   which on sorted elements are wanted, which with their count is inside of the row (`Sort::fits`).
    // - Loops: all of them end. They count up to a bound of at most 2^31, by a step that is not 0, but for
    //   the sorting network's, which double and halve a number of at most 1,024: ten rounds of at most ten.
    // - Integer division: divisors are at least 1 (`u_div`, `u_rem`, `f_rem`, `d_rem`, and a sort's padded
    //   length), and the signed ones are built on those.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
